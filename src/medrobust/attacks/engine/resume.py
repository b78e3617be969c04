"""Attempts on finished images, saved outside of the outs, so that a killed evaluation can resume."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from medrobust.attacks.engine.attempts import table_of
from medrobust.core.code import modules_hash
from medrobust.core.records import read_table, write_table
from medrobust.core.runtime import WORK, say
from medrobust.data.store import Subset

#: The code that decides an evaluation's result, besides the suite's attacks, whose hash is in the suite.
ENGINE = {"medrobust.attacks.engine.evaluate"}


@dataclass(frozen=True)
class ResumeFolder:
    """The folder of one evaluation (see `resume_folder`). Each file is written completely or not at all."""

    folder: Path

    def parts(self) -> list[Path]:
        """The complete files; an interrupted write leaves a hidden file (see `atomic_file`)."""
        return sorted(self.folder.glob("[!.]*.parquet"))

    def load(self) -> pd.DataFrame:
        parts = self.parts()
        known = pd.concat([read_table(part) for part in parts]) if parts else table_of([])
        if len(known):
            say(f"resuming: {known['id'].nunique()} images are already finished ({self.folder})")
        return known

    def save(self, attempts: pd.DataFrame) -> None:
        number = len(self.parts())
        write_table(self.folder / f"{number:06d}-{os.getpid()}.parquet", attempts)

    def clear(self) -> None:
        """Remove the folder, once the outs are written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def resume_folder(
    model: nn.Module, subset: Subset, suite: dict[str, Any], *, seed: int, bit_depth: int,
    train: Subset | None = None,
) -> ResumeFolder:  # fmt: skip
    """The folder of an evaluation, named by a hash of everything that decides its result.

    Batch size, devices and the number of processes do not decide it.
    """
    digest = hashlib.sha256(repr(model).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().float().numpy().tobytes())
    for part in (subset, train):
        if part is not None:
            for array in (part.ids, part.labels, part.patients):
                digest.update("\0".join(map(str, array)).encode())
            for start in range(0, len(part), 256):
                digest.update(part.batch(range(start, min(start + 256, len(part)))).numpy().tobytes())
    facts = [suite, seed, bit_depth, modules_hash(ENGINE)]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return ResumeFolder(WORK / "resume" / f"attack-{digest.hexdigest()[:24]}")

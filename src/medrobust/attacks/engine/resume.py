"""Attempts on finished images, saved outside of the outs, so that a killed evaluation can resume."""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from medrobust.attacks.engine.attempts import table_of
from medrobust.core.code import modules_hash
from medrobust.core.disk import remove_killed_writes
from medrobust.core.records import read_table, write_table
from medrobust.core.runtime import lasting_folder, say
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
        """All attempts. If two runs evaluated an image at the same time, only those of the first file count."""
        tables, seen = [], set[str]()
        for part in self.parts():
            table = read_table(part)
            tables.append(table[~table["id"].isin(seen)])
            seen.update(table["id"])
        known = pd.concat(tables) if tables else table_of([])
        if len(known):
            say(f"resuming: {known['id'].nunique()} images are already finished ({self.folder})")
        return known

    def save(self, attempts: pd.DataFrame) -> None:
        number = len(self.parts())
        write_table(self.folder / f"{number:06d}-{os.getpid()}.parquet", attempts)

    def clear(self) -> None:
        """Remove the files, once the outs are written; the folder stays while another run writes into it."""
        for file in self.parts():
            file.unlink(missing_ok=True)
        remove_killed_writes(self.folder.glob(".*"))
        with suppress(OSError):
            self.folder.rmdir()


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
    return ResumeFolder(lasting_folder() / "resume" / f"attack-{digest.hexdigest()[:24]}")

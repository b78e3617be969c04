"""What a killed evaluation had finished, image by image, kept outside of the outs."""

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

#: The code that decides an evaluation's result beside the suite's attacks, whose hash the suite holds.
ENGINE = {"medrobust.attacks.engine.evaluate"}


@dataclass(frozen=True)
class State:
    """A folder of finished images' attempts; every part is written whole or not at all.

    Attributes:
        folder: of this evaluation alone (see `state_of`).
        interval: seconds of work after which finished images are written.
    """

    folder: Path
    interval: float = 10.0

    def parts(self) -> list[Path]:
        """The parts that are written whole; what a kill cut short is a hidden file (see `atomic_file`)."""
        return sorted(self.folder.glob("[!.]*.parquet"))

    def read(self) -> pd.DataFrame:
        """The attempts of all images that are finished."""
        parts = self.parts()
        known = pd.concat([read_table(part) for part in parts]) if parts else table_of([])
        if len(known):
            say(f"resuming: {known['id'].nunique()} images are done already ({self.folder})")
        return known

    def add(self, attempts: pd.DataFrame) -> None:
        """Keep the attempts of images that are finished."""
        number = len(self.parts())
        write_table(self.folder / f"{number:06d}-{os.getpid()}.parquet", attempts)

    def clear(self) -> None:
        """Forget: the outs are written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def state_of(
    model: nn.Module, subset: Subset, suite: dict[str, Any], *, seed: int, bit_depth: int,
    allow_weak: bool = False, train: Subset | None = None,
) -> State:  # fmt: skip
    """The state of an evaluation, found by a hash of all that decides its result.

    That is the model's structure and weights, the images and labels (also those that attacks are fitted on), the
    suite with the code of its attacks, the engine's code, and the settings. Batch size, devices and the number of
    processes are not part of it.
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
    facts = [suite, seed, bit_depth, allow_weak, modules_hash(ENGINE)]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return State(WORK / "resume" / f"attack-{digest.hexdigest()[:24]}")

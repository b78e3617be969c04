"""Which run a file belongs to: dvc.lock keeps the hash of everything that each stage read and wrote.

After `dvc repro` every file belongs to the run. After an interrupted stage, `dvc repro --single-item`, a `git
checkout` of half the files or an edit of params.yaml it may not, and then its numbers must not stand in a report.
dvc.lock itself cannot be a dependency of a stage, because every stage changes it; it is only asked for doubts.
"""

import fcntl
import hashlib
import json
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from medrobust.core.params.yaml_file import read_params


class Lineage:
    """What dvc.lock says of a run's files."""

    def __init__(self, root: Path, stages: dict[str, Any]) -> None:
        """Take the stages of a lock file.

        Args:
            root: the folder that the lock's paths are relative to.
            stages: name -> `deps`, `params`, `outs` as in dvc.lock.
        """
        self.root, self.stages = root.resolve(), stages
        # Lists, because two entries can name one path where a stage was renamed.
        self.writers: dict[str, list[tuple[str, str | None]]] = {}
        self.readers: dict[str, list[tuple[str, str | None]]] = {}
        for name, stage in stages.items():
            for table, kind in ((self.writers, "outs"), (self.readers, "deps")):
                for row in stage.get(kind, []):
                    table.setdefault(row["path"], []).append((name, row.get("md5")))
        self.params: dict[str, Any] = {}
        self.doubts: dict[str, str | None] = {}

    @classmethod
    def of(cls, lock: Path, own: str) -> "Lineage | None":
        """The lineage in a lock file, None if there is no such file.

        Args:
            lock: dvc.lock.
            own: the stage that asks; what it read the last time is no evidence.
        """
        if not lock.is_file():
            return None
        # The parser with which DVC writes it: to PyYAML an unquoted `no` is False.
        stages = (YAML(typ="safe").load(_whole(lock)) or {}).get("stages", {})
        there = cells(lock.parent)
        kept = {name: stage for name, stage in stages.items() if name != own and (there is None or name in there)}
        return cls(lock.parent, kept)

    def doubt(self, path: Path) -> str | None:
        """Why a file is not a result of the run that dvc.lock describes; None if it is."""
        # The folder alone is resolved: the file may be a link to DVC's cache (cache.type symlink).
        there = path.parent.resolve() / path.name
        name = there.relative_to(self.root).as_posix() if there.is_relative_to(self.root) else str(path)
        place = next((str(p) for p in (Path(name), *Path(name).parents) if str(p) in self.writers), None)
        if place is None:
            return "no stage of dvc.lock wrote it"
        # What a stage read of a folder's file spares the hash of the whole folder.
        known = name != place and any(
            read == file_md5(path) and self.stale(stage) is None for stage, read in self.readers.get(name, [])
        )
        found = None if known else md5(self.root / place)
        reasons = [
            self.stale(stage) if known or found == written else f"not what stage {stage} wrote when it last ended"
            for stage, written in self.writers[place]
        ]
        return None if None in reasons else reasons[-1]

    def stale(self, stage: str) -> str | None:
        """Why a stage would give something else if it ran now; None if it would not."""
        if stage not in self.doubts:
            self.doubts[stage] = None
            self.doubts[stage] = self._stale_params(stage) or self._stale_deps(stage)
        return self.doubts[stage]

    def output(self, path: str) -> str | None:
        """The md5 that dvc.lock gives for an out."""
        return self.writers[path][-1][1] if path in self.writers else None

    def _stale_params(self, stage: str) -> str | None:
        for file, values in self.stages[stage].get("params", {}).items():
            if file not in self.params:
                self.params[file] = read_params(self.root / file) if (self.root / file).is_file() else {}
            for key, value in values.items():
                if look_up(self.params[file], key) != value:
                    return f"{key} in {file} has changed since stage {stage} ran"
        return None

    def _stale_deps(self, stage: str) -> str | None:
        for dep in self.stages[stage].get("deps", []):
            path, earlier = dep["path"], f"stage {stage} ran on an earlier {dep['path']}"
            related = [
                (out, writers)
                for out, writers in self.writers.items()
                if path == out or path.startswith(f"{out}/") or out.startswith(f"{path}/")
            ]
            if not related and md5(self.root / path) != dep.get("md5"):  # source code
                return earlier
            for out, writers in related:
                reasons = [
                    earlier if path == out and dep.get("md5") != written else self.stale(owner)
                    for owner, written in writers
                ]
                if None not in reasons:
                    return reasons[-1]
                # The lock has no hash of a part of an out, or of a folder of several: what lies there has.
                if path != out and md5(self.root / path) not in (None, dep.get("md5")):
                    return earlier
        return None


def _whole(lock: Path) -> str:
    """The text of dvc.lock. DVC writes it in place, so a stage beside this one may be in the middle of that.

    Who writes it holds the lock of DVC's repository, and gives it back while a stage's own command runs.
    """
    guard = lock.parent / ".dvc" / "tmp" / "lock"
    if not guard.is_file():
        return lock.read_text(encoding="utf-8")
    with guard.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        return lock.read_text(encoding="utf-8")


def cells(root: Path) -> set[str] | None:
    """The names of all stages and cells that dvc.yaml has now; None without a dvc.yaml.

    dvc.lock keeps the entries of stages that are gone, a suite that was taken out of params.yaml for one.
    """
    if not (root / "dvc.yaml").is_file():
        return None
    stages = YAML(typ="safe").load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    params = read_params(root / "params.yaml")
    names = set()
    for name, stage in stages.items():
        axes = [
            look_up(params, axis.removeprefix("${").removesuffix("}")) or () if isinstance(axis, str) else axis
            for axis in stage.get("matrix", {}).values()
        ]
        names |= {f"{name}@{'-'.join(cell)}" if axes else name for cell in product(*axes)}
    return names


def look_up(params: Any, key: str) -> Any:
    """The value under a dotted key, None if there is none."""
    for part in key.split("."):
        params = params.get(part) if isinstance(params, dict) else None
    return params


def md5(path: Path) -> str | None:
    """The md5 that DVC gives a file or folder, less what .dvcignore names; None if there is none."""
    if path.is_dir():
        rows = [
            {"md5": file_md5(file), "relpath": file.relative_to(path).as_posix()}
            for file in path.rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        ]
        rows.sort(key=lambda row: row["relpath"])
        return hashlib.md5(json.dumps(rows, sort_keys=True).encode()).hexdigest() + ".dir"
    return file_md5(path) if path.is_file() else None


@cache
def _hashed(path: Path, _size: int, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def file_md5(path: Path) -> str:
    """The md5 of a file's bytes, in hex; read once as long as the file does not change."""
    stat = path.stat()
    return _hashed(path, stat.st_size, stat.st_mtime_ns)

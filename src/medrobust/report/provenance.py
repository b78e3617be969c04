"""Which files belong to the run, by DVC's comparison of the working tree with dvc.lock (docs/report.md)."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medrobust.core.records import file_hash


class Provenance:
    """Every stage of dvc.yaml with its record in dvc.lock."""

    def __init__(self, root: Path, graph: Any) -> None:
        """Index DVC's graph, with an edge from each stage to those that it depends on, by the paths of outs."""
        self.root, self.graph = root, graph
        self.writers = {Path(out.fs_path): (stage, out) for stage in graph for out in stage.outs}
        self.reasons: dict[Any, str | None] = {}

    @classmethod
    def of(cls, lock: Path) -> "Provenance | None":
        """Read the pipeline of a dvc.lock; None if it is missing or its folder is no DVC repository.

        This waits while another DVC process writes dvc.lock. It works inside a stage: the process that started
        the stage does not hold DVC's lock while the stage runs.
        """
        if not lock.is_file() or not (lock.parent / ".dvc").is_dir():
            return None
        from dvc.repo import Repo

        repo = Repo(str(lock.parent.absolute()), _wait_for_lock=True)
        with repo.lock:
            return cls(Path(repo.root_dir), repo.index.graph)

    def foreign(self, path: Path) -> str | None:
        """Why a file is not a result of this run; None if it is.

        The stage that wrote it, and every stage that this one depends on, must have run on the current inputs.
        """
        known = path.absolute()  # not resolved: it may be a link into DVC's cache
        written = next((part for part in (known, *known.parents) if part in self.writers), None)
        if written is None:
            return "no stage of dvc.yaml writes it"
        stage, out = self.writers[written]
        if out.workspace_status():
            name = getattr(stage, "name", stage.addressing)
            return f"not what stage {name} wrote when it last ended"
        return self.outdated(stage)

    def outdated(self, stage: Any) -> str | None:
        """Why a stage, or one that it depends on, would give another result now; None if none would."""
        if stage not in self.reasons:
            upstream = (self.outdated(other) for other in self.graph.successors(stage))
            self.reasons[stage] = next(self._changes(stage), None) or next(filter(None, upstream), None)
        return self.reasons[stage]

    def md5(self, path: str) -> str | None:
        """The hash that dvc.lock holds for an out (its path below the root); None if it holds none."""
        _, out = self.writers.get(self.root / path, (None, None))
        return out.hash_info.value if out else None

    def _changes(self, stage: Any) -> Iterator[str]:
        """What differs from the record of a stage in dvc.lock, as sentences."""
        from dvc.dependency import ParamsDependency

        name = getattr(stage, "name", None)
        if name is None:  # the file of `dvc add`, which runs nothing
            return
        if stage.cmd_changed:
            yield f"the command of stage {name} has changed since it ran"
        for dep in stage.deps:
            if not dep.hash_info:
                yield f"dvc.lock has no record of stage {name}"
            elif isinstance(dep, ParamsDependency):
                for keys in dep.workspace_status().values():
                    yield f"{next(iter(keys))} in {dep.def_path} has changed since stage {name} ran"
            elif self._changed(dep):
                yield f"stage {name} ran on an earlier {dep.def_path}"

    def _changed(self, dep: Any) -> bool:
        """Whether a dependency differs from what the stage read."""
        if dep.exists:
            return bool(dep.workspace_status())
        # Not in the working tree (`dvc repro --allow-missing`): a whole out is compared by its hash in dvc.lock,
        # anything else counts as unchanged.
        path = Path(dep.fs_path)
        if path in self.writers:
            return bool(self.writers[path][1].hash_info != dep.hash_info)
        return not any(path in known.parents or known in path.parents for known in self.writers)


def folder_md5(folder: Path) -> str | None:
    """The md5 that DVC gives a folder, with its suffix `.dir`; None if there is no such folder."""
    if not folder.is_dir():
        return None
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    rows = [{"md5": file_hash(file, "md5"), "relpath": name} for name, file in sorted(files.items())]
    return hashlib.md5(json.dumps(rows, sort_keys=True).encode()).hexdigest() + ".dir"

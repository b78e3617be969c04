"""Remove results that belong to no stage: of backbones and suites that params.yaml no longer names (`make prune`).

The report depends on the folder of all metrics, and stages that hash results on folders of cells. There such a
result would count like any other: dvc.lock would hold a hash that no fresh clone has. Before it asks DVC,
`make repro` removes those that DVC's cache has and git does not track, and names the rest. `make prune` also
removes tracked files, entries of dvc.lock, and results of other data than the last run's.
"""

import argparse
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from dvc.repo import Repo
from dvc.utils.serialize import modify_yaml

from medrobust.core.disk import remove_killed_writes
from medrobust.core.records import file_hash
from medrobust.core.runtime import say
from tools.outside import named_files
from tools.same_data import on_other_data, read_lock

#: Files beside results that are not results.
NO_RESULT = {".gitignore", ".gitkeep", "dvc.yaml"}


@dataclass
class Pipeline:
    """What the stages of a repository write, and what lies where they write."""

    repo: Any  # dvc.repo.Repo
    other_data: bool = False  # whether results of other data count as belonging to no stage

    @cached_property
    def root(self) -> Path:
        """The top folder of the repository."""
        return Path(self.repo.root_dir)

    @cached_property
    def lock(self) -> dict[str, Any]:
        """The stages in dvc.lock."""
        path = self.root / "dvc.lock"
        return dict(read_lock(path.read_text(encoding="utf-8")) if path.is_file() else {})

    @cached_property
    def dead_entries(self) -> set[str]:
        """Names in dvc.lock that are no stage of dvc.yaml, or whose results are of other data."""
        names = {stage.name for stage in self.repo.index.stages if hasattr(stage, "name")}
        return (self.lock.keys() - names) | (on_other_data(self.lock) if self.other_data else set())

    @cached_property
    def live(self) -> set[Path]:
        """The outs of all stages, and files that params.yaml names (weights, data)."""
        outs = {
            Path(out.fs_path)
            for stage in self.repo.index.stages
            if getattr(stage, "name", None) not in self.dead_entries
            for out in stage.outs
            if out.is_in_repo
        }
        return outs | {self.root / text for text in named_files(self.root)}

    @cached_property
    def folders(self) -> set[Path]:
        """The folders that belong to the pipeline: those of cells, and of metrics and plots.

        A folder such as `data`, in which single outs lie, may have other files too.
        """
        stages = yaml.safe_load((self.root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        found = set()
        for stage in stages.values():
            for kind in ("outs", "metrics", "plots"):
                for out in stage.get(kind, []):
                    path, cells, _ = (out if isinstance(out, str) else next(iter(out))).partition("${")
                    if "/" in path and (cells or kind != "outs"):
                        found.add(self.root / path.rpartition("/")[0])
        return found

    @cached_property
    def leftovers(self) -> list[Path]:
        """Files and whole folders in the pipeline's folders that no stage writes."""
        above = {parent for path in self.live for parent in path.parents}
        # Of an entry that is dead, also outs elsewhere: of a stage that dvc.yaml no longer has.
        paths = {self.root / out["path"] for name in self.dead_entries for out in self.lock[name].get("outs", [])}
        dead = {path for path in paths if path.exists() and not self._is_live(path)} - above
        for folder in self.folders:
            dead |= set(self._dead_in(folder, above))
        return sorted(path for path in dead if not dead & set(path.parents))

    @cached_property
    def in_git(self) -> set[Path]:
        """The files that git tracks."""
        return self._git("ls-files")

    @cached_property
    def edited(self) -> set[Path]:
        """Those of them that are not as in the last commit."""
        return self._git("diff", "--name-only", "--relative", "HEAD")

    def tracked(self, path: Path) -> bool:
        """Whether git tracks a file, or a file in a folder."""
        return any(file in self.in_git for file in _files(path))

    def is_saved(self, path: Path) -> bool:
        """Whether the last commit or DVC's cache has all that a file or folder contains."""
        return all(
            (file in self.in_git and file not in self.edited) or self._is_cached(file) for file in _files(path)
        )

    def _is_cached(self, file: Path) -> bool:
        if file.is_symlink() and not file.exists():
            return False
        return bool(self.repo.cache.local.exists(file_hash(file, "md5")))

    def _is_live(self, path: Path) -> bool:
        return path in self.live or any(parent in self.live for parent in path.parents)

    def _dead_in(self, folder: Path, above: set[Path]) -> Iterator[Path]:
        if self._is_live(folder) or not folder.is_dir():
            return
        ignores = self.repo.dvcignore
        for path in folder.iterdir():
            if path in above:
                yield from self._dead_in(path, above)
            elif path in self.live or path.name in NO_RESULT or path.suffix == ".dvc":
                continue
            elif not (ignores.is_ignored_dir if path.is_dir() else ignores.is_ignored_file)(str(path)):
                yield path

    def _git(self, *command: str) -> set[Path]:
        done = subprocess.run(
            ["git", *command, "-z"], cwd=self.root, capture_output=True, text=True, check=False
        )  # fmt: skip
        return {self.root / name for name in done.stdout.split("\0") if name} if done.returncode == 0 else set()


def tidy(repo: Repo) -> str:
    """Remove what no stage writes, if git does not track it and DVC's cache has it; restore outs that are missing.

    Returns:
        What else belongs to no stage, as a sentence; "" if nothing does.
    """
    pipeline = Pipeline(repo)
    _remove_killed_writes(pipeline)
    removed: list[Path] = []
    left: list[Path] = []
    for path in pipeline.leftovers:
        gone = not pipeline.tracked(path) and pipeline.is_saved(path)
        (removed if gone else left).append(path)
    _remove(removed)
    if removed:
        say(f"removed, because no stage writes it (DVC's cache has it): {_named(pipeline, removed)}")
    missing = [out for out in repo.index.outs if out.use_cache and out.hash_info and not out.exists]
    if found := [out.fs_path for out in missing if not out.changed_cache()]:
        repo.checkout(targets=found, allow_missing=True)
    entries = pipeline.dead_entries
    parts = [_named(pipeline, left)] * bool(left) + [f"dvc.lock: {_listed(sorted(entries))}"] * bool(entries)
    return f"No stage writes this any more; run `make prune`: {'; '.join(parts)}" if parts else ""


def prune(repo: Repo, *, force: bool = False) -> tuple[list[Path], list[Path], list[str]]:
    """Remove what belongs to no stage, and results of other data than the last run's.

    Returns:
        The files and folders that were removed; those that are saved nowhere else and are only removed with
        `force`; and the entries that were removed from dvc.lock.
    """
    pipeline = Pipeline(repo, other_data=True)
    _remove_killed_writes(pipeline)
    kept = [] if force else [path for path in pipeline.leftovers if not pipeline.is_saved(path)]
    removed = [path for path in pipeline.leftovers if path not in kept]
    entries = sorted(pipeline.dead_entries)
    if entries:
        with repo.lock, modify_yaml(str(pipeline.root / "dvc.lock")) as content:
            for name in entries:
                del content["stages"][name]
    _remove(removed)
    return removed, kept, entries


def _remove_killed_writes(pipeline: Pipeline) -> None:
    for folder in {*pipeline.folders, *(path.parent for path in pipeline.live)}:
        if folder.is_dir() and folder.is_relative_to(pipeline.root):
            remove_killed_writes(folder.glob(".*.tmp*"))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if not file.is_dir()] if path.is_dir() else [path]


def _named(pipeline: Pipeline, paths: list[Path]) -> str:
    return _listed([path.relative_to(pipeline.root).as_posix() for path in paths])


def _listed(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def main() -> None:
    """Remove what belongs to no stage and say what."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--force", action="store_true", help="remove also what is saved nowhere else")
    args = parser.parse_args()
    with Repo(_wait_for_lock=True) as repo:
        removed, kept, entries = prune(repo, force=args.force)
        root = Path(repo.root_dir)
    for word, paths in (("removed", removed), ("kept, because neither git nor DVC has it (FORCE=1)", kept)):
        for path in paths:
            say(f"{word}: {path.relative_to(root).as_posix()}")
    for name in entries:
        say(f"removed from dvc.lock: {name}")
    if removed or entries:
        say("Run `make repro`, and commit dvc.lock, metrics and plots.")
    elif not kept:
        say("There is nothing to prune.")


if __name__ == "__main__":
    main()

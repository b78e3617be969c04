"""Which results of two runs stand on the same data, by their dvc.lock; `make diff` compares only these."""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from medrobust.core.runtime import say
from tools.git_calls import file_at

#: The stages whose outs are the data as published, and as all others read them.
DOWNLOAD, PREPARE = "download", "prepare"
Lock = Mapping[str, Any]
#: The loader in C is ten times as fast; some builds of PyYAML lack it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_lock(text: str) -> Lock:
    """The stages of a dvc.lock by name; {} of an empty text."""
    return dict((yaml.load(text, Loader=_LOADER) or {}).get("stages", {}))


def on_other_data(lock: Lock) -> set[str]:
    """The stages that last ran on other prepared data than those that the stage `prepare` wrote last."""
    prepared = _outs(lock, PREPARE)
    return {
        name
        for name, entry in lock.items()
        for dep in entry.get("deps", [])
        if dep["path"] in prepared and dep.get("md5") != prepared[dep["path"]]
    }


def same_data(old: Lock, new: Lock) -> bool:
    """Whether two runs stand on the same data: as published, or as prepared; of other image sizes the first is."""
    return any((known := _outs(old, stage)) and known == _outs(new, stage) for stage in (DOWNLOAD, PREPARE))


def comparable(old: Lock, new: Lock) -> set[str]:
    """Paths of the outs (metrics, plots, ...) of both runs that stand on the same data."""
    if not same_data(old, new):
        return set()
    return set(_current(old)) & set(_current(new))


def _current(lock: Lock) -> Iterator[str]:
    """Paths of the outs of stages that ran on the data of their own run."""
    for name in lock.keys() - on_other_data(lock):
        yield from _outs(lock, name)


def _outs(lock: Lock, stage: str) -> dict[str, str]:
    return {out["path"]: out.get("md5", "") for out in lock.get(stage, {}).get("outs", [])}


def main() -> None:
    """Print the changed metrics since a revision that stand on the same data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", nargs="?", default="HEAD", help="a revision of git; HEAD if there is none")
    base = parser.parse_args().base
    path = Path("dvc.lock")
    old = read_lock(file_at(base, path) or "")
    new = read_lock(path.read_text(encoding="utf-8") if path.is_file() else "")
    if not old:
        sys.exit(f"{base} has no dvc.lock to compare with.")
    if not same_data(old, new):
        say(f"Not compared: the results of {base} are of other data than those of dvc.lock here.")
        return
    alike = comparable(old, new)
    left = {out for lock in (old, new) for name in lock for out in _outs(lock, name)} - alike
    targets = sorted(out for out in alike if out.endswith(".json") and Path(out).is_file())
    if targets:
        subprocess.run(["dvc", "metrics", "diff", base, "--md", "--targets", *targets], check=True)
    if left := {out for out in left if out.startswith("metrics/")}:
        say(f"Not compared, because only one run has them, or of other data: {', '.join(sorted(left))}")


if __name__ == "__main__":
    main()

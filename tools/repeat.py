"""Run the pipeline with several seeds, folds or numbers of classes; write one table (docs/experiments.md).

`make seeds SEEDS=1,2,3`, `make folds` and `make classes`. Each run has a clone of its own under tmp/repeats, with
the last commit, DVC's cache of this one, and changed values in params.yaml. An interrupted command continues where
it was.
"""

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

from medrobust.core.errors import UserError
from medrobust.core.params.schema import Params, load_params
from medrobust.core.runtime import say
from medrobust.data.pseudonyms import KEY_FILE
from medrobust.report.provenance import Provenance
from tools.git_calls import clean_commit, git
from tools.outside import named_files
from tools.repeated_results import Row, class_counts, collect_results, pooled_patients, summarise

#: Clones, which are no outs and are ignored by git.
CLONES = Path("tmp/repeats")
#: Where the tables go; they hold no patient.
TABLES = Path("docs/tables")


def settings_of(kind: str, params: Params, seeds: list[int]) -> dict[str, dict[str, Any]]:
    """Name of each run -> its changes of params.yaml, by dotted key.

    Raises:
        UserError: no seeds, or the same one twice.
    """
    if kind == "classes":
        return {
            f"classes-{count}": merged_classes(params, count) for count in range(2, len(params.data.classes) + 1)
        }
    if kind == "folds":
        strategy = "published_folds" if params.split.strategy == "published_folds" else "kfold"
        changes = {"split.strategy": strategy, "split.folds": params.split.folds}
        return {f"fold-{k}": {**changes, "split.fold": k} for k in range(params.split.folds)}
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise UserError("SEEDS", f"got {seeds}", "Set two or more different seeds: make seeds SEEDS=1,2,3")
    return {f"seed-{seed}": {"seed": seed} for seed in seeds}


def merged_classes(params: Params, count: int) -> dict[str, Any]:
    """Changes of params.yaml for the same images with fewer classes: the last ones are merged into number `count`.

    Raises:
        UserError: the params merge classes already.
    """
    if params.split.merge:
        found = f"merges {', '.join(params.split.merge)}, so the number of classes is fixed"
        raise UserError("params.yaml: split.merge", found, "Set it to {}")
    classes = params.data.classes
    changes: dict[str, Any] = {"split.merge": dict.fromkeys(classes[count:], classes[count - 1])}
    return {"split.small_class": "merge", **changes} if changes["split.merge"] else {"split.merge": {}}


def prepare_clone(root: Path, name: str, changes: dict[str, Any], params: str | None = None) -> Path:
    """A clone of the last commit with changed params and the cache of `root`; its resume files stay.

    `changes` are made to the committed params.yaml, or to the text `params`.

    Raises:
        UserError: there are uncommitted changes, which no clone would have. Edited tables of `TABLES` do not
            count, because the command itself writes one between two runs; a clone has the committed ones.
    """
    remedy = "Commit them first; every run starts from the last commit"
    commit = clean_commit(root, remedy, "--untracked-files=no", "--", ".", f":(exclude){TABLES}")
    clone = root / CLONES / name
    if not (clone / ".git").exists():
        clone.parent.mkdir(parents=True, exist_ok=True)
        git(root, "clone", "--quiet", "--shared", str(root), str(clone))
    git(clone, "fetch", "--quiet", "origin")
    git(clone, "checkout", "--quiet", "--force", "--detach", commit)
    local = f"[cache]\n    dir = {root / '.dvc' / 'cache'}\n"
    (clone / ".dvc" / "config.local").write_text(local, encoding="utf-8")
    _link_files(root, clone)
    path = clone / "params.yaml"
    document = parse_yaml_for_update(params or path.read_text(encoding="utf-8"), str(path))
    for key, value in changes.items():
        block, *parts = document, *key.split(".")
        for part in parts[:-1]:
            block = block[part]
        block[parts[-1]] = value
    path.write_text(dumps_yaml(document), encoding="utf-8")
    return clone


def reproduce(clone: Path, jobs: int) -> bool:
    """Run the pipeline in a clone, with the code of the clone; whether it succeeded."""
    environment = {**os.environ, "PYTHONPATH": str(clone / "src")}
    command = [sys.executable, "-m", "tools.repro", "--jobs", str(jobs)]
    return subprocess.run(command, cwd=clone, env=environment, check=False).returncode == 0


def how_to_show(kind: str, path: Path, params: Params) -> str:
    """The sentence that tells how the report gets to show a table over seeds or folds."""
    if any((table.over, Path(table.file)) == (kind, path) for table in params.report.repeated):
        return "`make repro` shows it in the report"
    entry = f"{{over: {kind}, file: {path.as_posix()}}}"
    return f"To show it in the report, add {entry} to report.repeated in params.yaml"


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV; columns are the keys of all rows, in the order in which they occur."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _link_files(root: Path, clone: Path) -> None:
    """Make relative paths in params.yaml (of data, weights, ...) mean the same files in the clone.

    Clones also share the secret of pseudonyms: another one would give the patients other names.
    """
    for text in (KEY_FILE, *named_files(root)):
        target = clone / text
        if (root / text).exists() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to((root / text).resolve())


def main() -> None:
    """Run all repetitions, then write the table; exit 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["seeds", "folds", "classes"])
    parser.add_argument("--seeds", default="", help="comma-separated whole numbers")
    parser.add_argument("--jobs", type=int, default=2, help="stages at a time")
    args = parser.parse_args()
    root, params = Path.cwd(), load_params()
    try:
        seeds = [int(text) for text in args.seeds.split(",") if text.strip()]
    except ValueError:
        raise UserError("SEEDS", f"got {args.seeds!r}", "Use whole numbers: make seeds SEEDS=1,2,3") from None
    runs = settings_of(args.kind, params, seeds)
    clones = {name: prepare_clone(root, name, changes) for name, changes in runs.items()}
    for name, clone in clones.items():
        say(f"{name}: {clone}")
        if not reproduce(clone, args.jobs):
            sys.exit(f"{name} failed. Run the command again to continue; results so far are in DVC's cache")
    results = {name: collect_results(clone, params) for name, clone in clones.items()}
    if args.kind == "classes":
        rows = class_counts(results)
    else:
        rows = summarise(results, collect_results(root, params, Provenance.of(root / "dvc.lock")))
    if args.kind == "folds":
        rows += pooled_patients(list(clones.values()), params)
    path = TABLES / f"{args.kind}.csv"
    write_table(path, rows)
    for row in rows:
        say("  ".join(f"{key} {value}" for key, value in row.items()))
    say(f"written: {path}")
    if args.kind != "classes":
        say(how_to_show(args.kind, path, params))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))

"""Run the pipeline with stages that do not depend on each other side by side (`make repro JOBS=2`).

`dvc repro` runs one stage at a time. What DVC allows is `dvc repro --single-item` of several stages at once, as
long as none needs another; this puts them into order. Stages, results and dvc.lock are those of `dvc repro`. Two
stages of one thread each make more of two cores than one stage of two threads: half of a small stage is its start.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path

from dvc.repo import Repo

from medrobust.core.errors import UserError
from medrobust.core.params.schema import load_params
from medrobust.core.records import read_versions
from medrobust.core.runtime import say
from medrobust.core.versions import changed_results, installed

Needs = Mapping[str, set[str]]

#: Stages that hash code or resolve params: seconds, and mostly the same result as before.
CHEAP = {"code", "suite", "surrogate", "settings", "detection"}

#: What DVC says after every stage, and what `say` says already.
CHATTER = (
    "To track the changes with git", "git add", "To enable auto staging", "dvc config core.autostage",
    "Use `dvc push`", "Running stage", "Updating lock file", "Generating lock file", "Data and pipelines are up",
)  # fmt: skip


def pipeline() -> tuple[Needs, set[str]]:
    """Every stage with the stages that it depends on, and those that have changed themselves."""
    with Repo() as repo:
        graph = repo.index.graph
        needs = {
            stage.addressing: {other.addressing for other in graph.successors(stage)} for stage in graph.nodes
        }
        return needs, set(repo.status())


def affected(needs: Needs, changed: Iterable[str]) -> Needs:
    """The part of the pipeline that may have to run: what changed, and what stands on it."""
    found = set(changed)
    for name in TopologicalSorter(needs).static_order():
        if needs[name] & found:
            found.add(name)
    return {name: needs[name] & found for name in needs if name in found}


def heights(needs: Needs) -> dict[str, int]:
    """How many stages stand on each, one on the other: those with the longest way to go start first."""
    found = dict.fromkeys(needs, 0)
    for name in reversed([*TopologicalSorter(needs).static_order()]):
        for other in needs[name]:
            found[other] = max(found[other], found[name] + 1)
    return found


def run(needs: Needs, jobs: int) -> list[str]:
    """Run stages, each after those that it needs, `jobs` at a time; the names of those that failed.

    After a failure no further stage is started.
    """
    height = heights(needs)
    order = sorted(needs, key=lambda name: (height[name], len(needs[name])), reverse=True)
    done: set[str] = set()
    failed: list[str] = []
    running: dict[Future[bool], str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        while True:
            started = done | set(failed) | set(running.values())
            ready = [name for name in order if name not in started and needs[name] <= done]
            for name in ready[: 0 if failed else jobs - len(running)]:
                running[pool.submit(reproduce, name)] = name
            if not running:
                return failed
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                if future.result():
                    done.add(name)
                else:
                    failed.append(name)


def reproduce(name: str) -> bool:
    """Run one stage by DVC and print each line of its output behind its name.

    Returns:
        Whether it succeeded.
    """
    begin = time.monotonic()
    process = subprocess.Popen(
        ["dvc", "--wait-for-lock", "repro", "--single-item", name],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in map(str.strip, process.stdout):
        if line and not line.startswith(CHATTER):
            say(f"{name} | {line}")
    succeeded = process.wait() == 0
    say(f"{name} | {'done' if succeeded else 'FAILED'} in {time.monotonic() - begin:.0f} s")
    return succeeded


def cheap_first(needs: Needs, changed: set[str]) -> Needs:
    """The changed stages that only hash code or resolve params, and that wait for no other changed stage.

    They take seconds and often give what was there before, so that what stands on them has nothing to do.
    """
    waiting = affected(needs, {name for name in changed if name.partition("@")[0] not in CHEAP})
    return {name: needs[name] & changed for name in affected(needs, changed) if name in changed - set(waiting)}


def repro(jobs: int) -> list[str]:
    """Run what changed, `jobs` stages at a time; the names of those that failed."""
    needs, changed = pipeline()
    while cheap := cheap_first(needs, changed):
        if failed := run(cheap, jobs):
            return failed
        before, (needs, changed) = changed, pipeline()
        if before == changed:
            break
    return run(affected(needs, changed), jobs) if changed else []


def version_notes(metrics: Path) -> list[str]:
    """What to say of results that were computed with other versions of packages than those installed now."""
    known = {str(path): line for path in metrics.rglob("*.json") if (line := read_versions(path))}
    changes = changed_results(known, dict.fromkeys(known, installed()))
    notes = [f"{text}: {len(names)} of {len(known)} results are of the first" for text, names in changes.items()]
    return [*notes, "A new version alone runs no stage again; `dvc repro --force` runs all."] if notes else []


def main() -> None:
    """Run what changed; exit 1 if a stage failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="stages at a time; 1 = plain `dvc repro`")
    args = parser.parse_args()
    try:
        load_params()
    except UserError as error:  # DVC would name dvc.yaml, which takes its cells from params.yaml
        sys.exit(str(error))
    if args.jobs == 1:
        sys.exit(subprocess.run(["dvc", "repro"], check=False).returncode)
    if failed := repro(args.jobs):
        sys.exit(f"failed: {', '.join(failed)}")
    if left := pipeline()[1]:
        sys.exit(f"still changed after the run: {', '.join(sorted(left))}; run `dvc repro`")
    say("\n".join(["Data and pipelines are up to date.", *version_notes(Path("metrics"))]))


if __name__ == "__main__":
    main()

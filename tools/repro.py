"""Run the pipeline with stages that do not depend on each other side by side (`make repro JOBS=2`).

`dvc repro` runs one stage at a time. What DVC allows is `dvc repro --single-item` of several stages at once, as
long as none needs another; this puts them into order. Stages, results and dvc.lock are those of `dvc repro`. Two
stages of one thread each make more of two cores than one stage of two threads: half of a small stage is its start.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter

from dvc.repo import Repo

from medrobust.core.runtime import say

Needs = Mapping[str, set[str]]

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
                running[pool.submit(reproduce, name, jobs)] = name
            if not running:
                return failed
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                if future.result():
                    done.add(name)
                else:
                    failed.append(name)


def reproduce(name: str, jobs: int) -> bool:
    """One stage by DVC, each line of its output behind its name; whether it succeeded.

    Its share of the processor is fixed, because the rounding of a result may hang on the number of threads.
    """
    threads = str(max((os.cpu_count() or 1) // jobs, 1))
    begin = time.monotonic()
    process = subprocess.Popen(
        ["dvc", "--wait-for-lock", "repro", "--single-item", name], env={"OMP_NUM_THREADS": threads, **os.environ},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in map(str.strip, process.stdout):
        if line and not line.startswith(CHATTER):
            say(f"{name} | {line}")
    succeeded = process.wait() == 0
    say(f"{name} | {'done' if succeeded else 'FAILED'} in {time.monotonic() - begin:.0f} s")
    return succeeded


def main() -> None:
    """Run what changed; exit 1 if a stage failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="stages at a time; 1 = plain `dvc repro`")
    args = parser.parse_args()
    if args.jobs > 1:
        needs, changed = pipeline()
        if failed := run(affected(needs, changed), args.jobs):
            sys.exit(f"failed: {', '.join(failed)}")
    # What is left, which is nothing but where `jobs` is 1; and DVC's own word that all is up to date.
    sys.exit(subprocess.run(["dvc", "repro"], check=False).returncode)


if __name__ == "__main__":
    main()

"""Run the pipeline with stages that do not depend on each other side by side (`make repro JOBS=2`).

`dvc repro` runs one stage at a time. What DVC allows is `dvc repro --single-item` of several stages at once, as
long as none needs another; this puts them into order. Stages, results and dvc.lock are those of `dvc repro`. Two
stages of one thread each make more of two cores than one stage of two threads: half of a small stage is its start.

Before DVC is asked, results that belong to no stage are removed (`prune`), and stages whose files outside the
pipeline have been edited are marked to run (`outside`). DVC sees neither.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

from dvc.repo import Repo

from medrobust.core.disk import disk_errors
from medrobust.core.errors import UserError
from medrobust.core.params.schema import load_params
from medrobust.core.records import read_versions
from medrobust.core.runtime import WORK, file_lock, say
from medrobust.core.versions import changed_results, installed
from tools.artifacts import write_artifacts
from tools.dvc_calls import in_repo, params_read_once, run_stage
from tools.order import Needs, affected, run_in_order
from tools.outside import edited, reads_outside
from tools.prune import tidy

#: Runs stages in order; gives the names of those that failed.
Run = Callable[[Needs], list[str]]

#: Stages that hash code or resolve params: seconds, and mostly the same result as before.
CHEAP = {
    "code", "suite", "surrogate", "settings", "detection", "corruptions", "checkpoints", "attempts",
    "attempts_ensemble", "attempts_method", "guards", "tables", "external", "repeated",
}  # fmt: skip


def pipeline() -> tuple[Needs, set[str]]:
    """Every stage with the stages that it depends on, and those that have changed themselves."""

    def ask(repo: Repo) -> tuple[Needs, set[str]]:
        with params_read_once():
            changed = set(repo.status())
        return all_needs(repo), changed | {name for name in readers(repo) if outside(repo, name)[0]}

    return in_repo(ask)


def all_needs(repo: Repo) -> Needs:
    """Every stage with the stages that it depends on."""
    graph = repo.index.graph
    return {stage.addressing: {other.addressing for other in graph.successors(stage)} for stage in graph.nodes}


def readers(repo: Repo) -> list[str]:
    """The stages that read files outside the pipeline."""
    return [stage.addressing for stage in repo.index.stages if reads_outside(stage.addressing)]


def outside(repo: Repo, name: str) -> tuple[list[str], list[str]]:
    """What a stage has read from outside the pipeline: what was edited since, and what is not on this machine."""
    outs = [Path(out.fs_path) for stage in repo.index.stages if stage.addressing == name for out in stage.outs]
    return edited(name, outs[0]) if outs else ([], [])


def run(needs: Needs, jobs: int, *, keep_going: bool = False) -> list[str]:
    """Run stages in threads of this process, `jobs` at a time; the names of those that failed."""
    with ThreadPoolExecutor(jobs) as pool:
        return run_in_order(
            needs, lambda name, _: pool.submit(reproduce, name), most=jobs, keep_going=keep_going
        )  # fmt: skip


def reproduce(name: str) -> bool:
    """Run one stage by DVC and say how long it took.

    Returns:
        Whether it succeeded.
    """
    begin = time.monotonic()
    force = must_force(name)
    succeeded = run_stage(name, force=force)
    if succeeded and not force and must_force(name):  # the run cache gave what it made of the files as they were
        succeeded = run_stage(name, force=True)
    say(f"{name} | {'done' if succeeded else 'FAILED'} in {time.monotonic() - begin:.0f} s")
    return succeeded


def must_force(name: str) -> bool:
    """Whether a stage has to run for files that DVC does not watch; it says for which."""
    changed = in_repo(lambda repo: outside(repo, name)[0]) if reads_outside(name) else []
    for what in changed:
        say(f"{name} | {what} has been edited since it was read")
    return bool(changed)


def cheap_first(needs: Needs, changed: set[str]) -> Needs:
    """The changed stages that only hash code or resolve params, and that wait for no other changed stage.

    They take seconds and often give what was there before, so that what stands on them has nothing to do.
    """
    waiting = affected(needs, {name for name in changed if name.partition("@")[0] not in CHEAP})
    return {name: needs[name] & changed for name in affected(needs, changed) if name in changed - set(waiting)}


def repro(run: Run) -> list[str]:
    """Run what changed; the names of those that failed."""
    needs, changed = pipeline()
    while cheap := cheap_first(needs, changed):
        if failed := run(cheap):
            return failed
        before, (needs, changed) = changed, pipeline()
        if before == changed:
            break
    return run(affected(needs, changed)) if changed else []


def version_notes(metrics: Path) -> list[str]:
    """What to say of results that were computed with other versions of packages than those installed now."""
    known: dict[str, str] = {}
    for path in metrics.rglob("[!.]*.json"):
        with suppress(UserError):  # damaged: of no stage, or the report names it
            if line := read_versions(path):
                known[str(path)] = line
    changes = changed_results(known, dict.fromkeys(known, installed()))
    notes = [f"{text}: {len(names)} of {len(known)} results are of the first" for text, names in changes.items()]
    return [*notes, "A new version alone runs no stage again; `dvc repro --force` runs all."] if notes else []


def prepare(repo: Repo) -> str:
    """Say what is not on this machine, and tidy the folders of results; what `tidy` says of the rest."""
    for name in readers(repo):
        for what in outside(repo, name)[1]:
            say(f"{name} | {what} is not on this machine; what was read from it before stays in use")
    return tidy(repo)


@contextmanager
def engine(options: argparse.Namespace) -> Iterator[Run]:
    """What runs stages: threads, or the workers of Dask.

    Raises:
        UserError: Dask's workers cannot be used.
    """
    if options.engine == "threads":
        yield partial(run, jobs=options.jobs, keep_going=options.keep_going)
        return
    from tools.dask_head import Plan, connected, head, read_resources

    needs = in_repo(all_needs)
    plan = Plan(
        needs, reproduce, CHEAP, options.jobs, read_resources(options.resources, needs),
        keep_going=options.keep_going, repository=options.repository, any_versions=options.any_versions,
    )  # fmt: skip
    with connected(options.scheduler, options.jobs) as client, head(client, plan) as found:
        yield partial(run_in_order, start=found.start, keep_going=options.keep_going)


def run_pipeline(options: argparse.Namespace) -> None:
    """Run what changed; exit 1 if a stage failed or the user has to do something first."""
    write_artifacts(load_params())  # DVC would name dvc.yaml, which takes its cells from params.yaml
    rest = in_repo(prepare)
    with engine(options) as run_stages:
        failed = repro(run_stages)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
    if left := pipeline()[1]:
        sys.exit(f"still changed after the run: {', '.join(sorted(left))}; run `dvc repro`")
    if rest:
        say(rest)
    say("\n".join(["Data and pipelines are up to date.", *version_notes(Path("metrics"))]))


def main() -> None:
    """Run what changed, after another `make repro` in this folder has ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="stages at a time")
    parser.add_argument("--keep-going", action="store_true", help="after a failure run what does not need it")
    parser.add_argument("--engine", choices=["threads", "dask"], default="threads")
    parser.add_argument("--scheduler", default="", help="tcp://HOST:8786; default: workers on this machine")
    parser.add_argument("--resources", default="", help="YAML file: kind of stage -> what a worker must have")
    parser.add_argument("--repository", default="", help="where workers clone from; default: this folder")
    parser.add_argument("--any-versions", action="store_true", help="workers may have other versions of packages")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends it at once, as SIGTERM does; its stages end with it
    holder = f"process {os.getpid()}, started at {datetime.now():%H:%M:%S}"
    waiting = "{holder}, runs the pipeline of this folder; waiting for it to end"
    try:
        with disk_errors(str(WORK)), file_lock(WORK / "locks" / "make-repro.lock", holder, waiting):
            run_pipeline(options)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

"""The head of a run on Dask workers (`make repro ENGINE=dask`, docs/scaling.md).

A worker runs a cell in a clone of its own and leaves the results in DVC's cache, which all machines share. The
head then asks DVC for the same cell, and DVC restores it from its run cache: only the head writes dvc.lock. On the
head run stages of seconds, and stages that read what DVC does not store (metrics, files outside the pipeline).
"""

import os
import platform
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from graphlib import TopologicalSorter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import yaml
from dvc.repo import Repo

from medrobust.core.errors import UserError
from medrobust.core.runtime import WORK, say
from medrobust.data.pseudonyms import KEY_FILE
from tools.dvc_calls import CHATTER, in_repo, run_stage
from tools.git_calls import clean_commit, git
from tools.order import Needs
from tools.outside import named_files, reads_outside
from tools.same_data import Lock, read_lock

#: Files of a run: they may differ from the last commit.
RESULTS = (":!dvc.lock", ":!metrics", ":!plots", ":!models/dvc.yaml")
#: Seconds to wait for an answer of the scheduler.
PATIENCE = 10


def locked_packages(lock: Path) -> dict[str, str]:
    """Name -> installed version, of the packages that requirements.lock names and that are installed here."""
    found = {}
    for line in lock.read_text(encoding="utf-8").splitlines() if lock.is_file() else ():
        name = line.partition("==")[0].strip()
        if line and line[0].isalnum():
            with suppress(PackageNotFoundError):
                found[name] = version(name)
    return found


@contextmanager
def connected(scheduler: str, jobs: int) -> Iterator[Any]:
    """A client of the scheduler at an address, or of a cluster of `jobs` processes on this machine if it is "".

    Raises:
        UserError: `distributed` is not installed, or no scheduler answers.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        found = "ENGINE=dask needs the package distributed"
        raise UserError("ENGINE", found, "Run `make extras`") from None
    if not scheduler:
        folder = WORK.absolute() / "dask" / "workers"
        with (
            LocalCluster(
                n_workers=jobs, threads_per_worker=1, dashboard_address=":0", local_directory=str(folder)
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        remedy = "Run `dask scheduler` there, or set SCHEDULER to its address"
        raise UserError("SCHEDULER", f"nothing answers at {scheduler} ({error})", remedy) from None
    with client:
        say(f"Dask's dashboard: {client.dashboard_link}")
        yield client


@dataclass(frozen=True)
class Plan:
    """What to run, and how; no result depends on it."""

    needs: Needs  # of all stages
    reproduce: Callable[[str], bool]  # runs a stage on the head
    cheap: Collection[str]  # kinds of stages that are not worth a worker
    jobs: int  # stages at a time on the head
    resources: Mapping[str, Mapping[str, float]]  # kind of stage -> what a worker must have
    keep_going: bool = False
    repository: str = ""  # where workers clone from; "": the folder of the head
    any_versions: bool = False


class Head:
    """Starts cells on workers, and restores each one here as soon as it has ended."""

    def __init__(self, client: Any, run: Any, plan: Plan) -> None:
        from distributed import Event

        self.client, self.run, self.plan = client, run, plan
        self.above = ancestors(plan.needs)
        here, self.checked_out = in_repo(what_runs_where)
        self.here = here | {name for name in plan.needs if name.partition("@")[0] in plan.cheap}
        self.pool = ThreadPoolExecutor(plan.jobs)
        self.stopped = Event(run.key, client=client)
        self.ended: SimpleQueue[tuple[str, Any, Future[bool]] | None] = SimpleQueue()
        self.restorer = threading.Thread(target=self._restore_all, daemon=True)
        self.restorer.start()

    def start(self, name: str, height: int) -> Future[bool]:
        """Start a cell on a worker; its future is done when its results are here."""
        from tools.dask_worker import run_cell

        if name in self.here:
            return self.pool.submit(self.plan.reproduce, name)
        lock = locked(Path("dvc.lock"))
        entries = {other: lock[other] for other in self.above[name] if other in lock}
        inputs = sorted(self.above[name] & self.checked_out & entries.keys())
        task = self.client.submit(
            run_cell, self.run, name, entries, inputs, key=f"{name}-{uuid.uuid4().hex[:8]}", priority=height,
            resources=dict(self.plan.resources.get(name.partition("@")[0], {})) or None, pure=False,
        )  # fmt: skip
        restored: Future[bool] = Future()
        task.add_done_callback(lambda task: self.ended.put((name, task, restored)))
        return restored

    def close(self) -> None:
        """End the threads."""
        self.ended.put(None)
        self.restorer.join()
        self.pool.shutdown()

    def _restore_all(self) -> None:
        last = False
        while not last:
            batch = [self.ended.get()]
            while not self.ended.empty():
                batch.append(self.ended.get())
            last = None in batch
            computed = [item for item in batch if item is not None and self._was_computed(*item)]
            # One call for all that ended meanwhile: most of its time is DVC's start and its reading of dvc.yaml.
            together = len(computed) > 1 and run_stage(*[name for name, _, _ in computed])
            for name, _, restored in computed:
                self._tell(name, restored, succeeded=together or run_stage(name))

    def _was_computed(self, name: str, task: Any, restored: Future[bool]) -> bool:
        found = task.result() if task.status == "finished" else False
        if task.status == "error":  # of Dask, such as KilledWorker
            say(f"{name} | {type(task.exception()).__name__}: {task.exception()}")
        elif task.status != "finished":
            say(f"{name} | the scheduler has gone")
        if found is None:
            restored.cancel()
        elif not found:
            self._tell(name, restored, succeeded=False)
        return bool(found)

    def _tell(self, name: str, restored: Future[bool], *, succeeded: bool) -> None:
        say(f"{name} | {'done' if succeeded else 'FAILED'} on a worker")
        if not succeeded and not self.plan.keep_going:
            self.stopped.set()
        restored.set_result(succeeded)


def read_resources(path: str, needs: Needs) -> dict[str, dict[str, float]]:
    """Kind of stage -> what a worker must have (`{train: {GPU: 1}}`); {} without a file.

    Raises:
        UserError: the file is missing, is no such mapping, or names no stage of dvc.yaml.
    """
    if not path:
        return {}
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise UserError(path, str(error), "Set RESOURCES to a YAML file (docs/scaling.md)") from None
    kinds = {name.partition("@")[0] for name in needs}
    for kind, wanted in content.items() if isinstance(content, dict) else [(content, None)]:
        if not isinstance(wanted, dict) or not all(isinstance(value, int | float) for value in wanted.values()):
            raise UserError(path, f"got {kind}: {wanted}", "Use a line such as `train: {GPU: 1}`")
        if kind not in kinds:
            raise UserError(path, f"{kind} is no stage of dvc.yaml", f"Use one of {', '.join(sorted(kinds))}")
    return dict(content)


def ancestors(needs: Needs) -> dict[str, set[str]]:
    """Every stage with all that it depends on, directly or not."""
    found: dict[str, set[str]] = {}
    for name in TopologicalSorter(needs).static_order():
        found[name] = needs[name].union(*(found[other] for other in needs[name]))
    return found


def what_runs_where(repo: Repo) -> tuple[set[str], set[str]]:
    """Stages that run on the head; and stages with outs in DVC's cache, which workers check out as inputs."""
    stages = repo.index.stages
    loose = [Path(out.fs_path) for stage in stages for out in stage.outs if not out.use_cache]
    here = set()
    for stage in stages:
        deps = [Path(dep.fs_path) for dep in stage.deps if dep.is_in_repo and dep.def_path != "params.yaml"]
        if any(path == dep or dep in path.parents for dep in deps for path in loose):
            here.add(stage.addressing)
    kept = {stage.addressing for stage in stages if any(out.use_cache for out in stage.outs)}
    return here | {stage.addressing for stage in stages if reads_outside(stage.addressing)}, kept


def locked(path: Path) -> Lock:
    """The stages in dvc.lock; {} without the file."""
    return _parsed(path.read_text(encoding="utf-8") if path.is_file() else "")


#: Many cells start between two changes of the file, and parsing takes longer than all else of a start.
_parsed = lru_cache(maxsize=1)(read_lock)


@contextmanager
def head(client: Any, plan: Plan) -> Iterator[Head]:
    """A head, after the workers have been made ready for the last commit; those that cannot take part are retired.

    Raises:
        UserError: uncommitted changes, or no worker can take part.
    """
    import cloudpickle

    from tools import dask_worker

    cloudpickle.register_pickle_by_value(dask_worker)
    root = Path.cwd()
    remedy = "Commit them first; workers run the last commit"
    commit = clean_commit(root, remedy, "--", ".", *RESULTS)
    cache = Path(in_repo(lambda repo: repo.cache.local_cache_dir))
    cache.mkdir(parents=True, exist_ok=True)
    probe = cache / f".probe-{uuid.uuid4().hex}"
    probe.write_text(commit, encoding="utf-8")
    same = not plan.any_versions
    run = dask_worker.Run(
        repository=plan.repository or str(root), commit=commit, cache=str(cache), probe=(probe.name, commit),
        packages=locked_packages(root / "requirements.lock") if same else {},
        python=platform.python_version() if same else "", scratch=str(root / WORK / "resume"),
        links={text: str((root / text).resolve()) for text in (KEY_FILE, *named_files(root))
               if not Path(text).is_absolute() and (root / text).exists() and not is_tracked(root, text)},
        threads=os.environ.get("MEDROBUST_THREADS", "1"),
    )  # fmt: skip
    (root / WORK / "resume").mkdir(parents=True, exist_ok=True)
    client.subscribe_topic(dask_worker.TOPIC, partial(show, run.key))
    try:
        refused = {
            address: reason
            for address, reason in client.run(partial(dask_worker.check_worker, run)).items()
            if reason
        }
        for address, reason in refused.items():
            say(f"worker {address} is refused: {reason}")
        if refused:
            client.retire_workers(list(refused), close_workers=True, remove=True)
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise UserError("SCHEDULER", "no worker can take part", "Start workers: `dask worker ADDRESS`")
        client.register_plugin(dask_worker.Medrobust(run))
        started = Head(client, run, plan)
        try:
            yield started
        finally:
            started.close()
    finally:
        probe.unlink(missing_ok=True)


def is_tracked(root: Path, text: str) -> bool:
    """Whether a clone has a file or folder already."""
    return bool(git(root, "ls-files", "--", text))


def show(run: str, event: Any) -> None:
    """Print a line that a worker sent for a run."""
    key, name, line = event[1]
    if key == run and not line.startswith(CHATTER):
        say(f"{name} | {line}")

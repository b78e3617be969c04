"""Simulate a study on Dask workers: real scheduler and order of `make repro ENGINE=dask`, cells that only sleep.

    python -m benchmarks.scaling                    # 1, 2, 4, 16 and 64 workers

The graph has the cells of 12 backbones, 8 suites and 5 seeds. A cell sleeps as long as its stage took on average
in the default run, times `--scale`. The table gives seconds of the study itself (sleeps divided by the scale): how
long it takes, and the larger of two lower bounds, its critical path and all cells divided by the workers. The two
last columns are real seconds per cell, of the scheduler and not of DVC: what the run takes beyond that bound, and
processor time of scheduler, client and workers together.
"""

import argparse
import time
from concurrent.futures import Future
from typing import Any

from medrobust.core.runtime import say
from tools.order import Needs, run_in_order

#: Seconds of one cell in the default run (two cores, one thread per stage).
SECONDS = {
    "prepare": 7.0, "split": 0.3, "tune": 8.0, "train": 28.9, "adv_train": 41.3, "attack": 13.6, "check": 49.2,
    "ensemble": 14.7, "attack_ensemble": 36.2, "publish": 2.3, "report": 7.0,
}  # fmt: skip


def study(backbones: int, suites: int, seeds: int) -> Needs:
    """Cell -> the cells that it needs; cells of a stage are called `stage@...`."""
    needs: dict[str, set[str]] = {}
    for seed in range(seeds):
        needs[f"prepare@{seed}"] = set()
        needs[f"split@{seed}"] = {f"prepare@{seed}"}
        trained = set()
        for backbone in (f"{seed}-{number}" for number in range(backbones)):
            needs[f"tune@{backbone}"] = {f"split@{seed}"}
            needs[f"train@{backbone}"] = {f"tune@{backbone}"}
            needs[f"adv_train@{backbone}"] = {f"train@{backbone}"}
            trained.add(f"adv_train@{backbone}")
            attacks = {
                f"attack@{backbone}-{regime}-{suite}": {f"{stage}@{backbone}"}
                for regime, stage in (("clean", "train"), ("adv", "adv_train"))
                for suite in range(suites)
            }
            needs |= attacks
            needs[f"check@{backbone}"] = set(attacks)
            needs[f"publish@{backbone}"] = {f"check@{backbone}"}
        needs[f"ensemble@{seed}"] = trained
        last = {f"publish@{seed}-{number}" for number in range(backbones)}
        for suite in range(suites):
            needs[f"attack_ensemble@{seed}-{suite}"] = {f"ensemble@{seed}"}
            last.add(f"attack_ensemble@{seed}-{suite}")
        needs[f"report@{seed}"] = last
    return needs


def seconds(name: str) -> float:
    """How long a cell takes."""
    return SECONDS[name.partition("@")[0]]


def critical_path(needs: Needs) -> float:
    """Seconds of the longest way through the graph."""
    ends: dict[str, float] = {}

    def end(name: str) -> float:
        if name not in ends:
            ends[name] = seconds(name) + max(map(end, needs[name]), default=0.0)
        return ends[name]

    return max(map(end, needs))


def makespan(client: Any, needs: Needs, scale: float) -> float:
    """Real seconds that the study takes."""

    def start(name: str, height: int) -> Future[bool]:
        task = client.submit(_sleep, seconds(name) * scale, key=name, priority=height, pure=False)
        ended: Future[bool] = Future()
        task.add_done_callback(lambda task: ended.set_result(task.result()))
        return ended

    begin = time.perf_counter()
    assert not run_in_order(needs, start)
    return time.perf_counter() - begin


def _sleep(duration: float) -> bool:
    time.sleep(duration)
    return True


def main() -> None:
    """Run the study with each number of workers and print the table."""
    from distributed import Client, LocalCluster

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 16, 64])
    parser.add_argument("--size", type=int, nargs=3, default=[12, 8, 5], help="backbones, suites, seeds")
    parser.add_argument("--scale", type=float, default=0.004)
    args = parser.parse_args()
    needs = study(*args.size)
    total, path = sum(map(seconds, needs)), critical_path(needs)
    say(f"{len(needs)} cells, {total:.0f} s in all, critical path {path:.0f} s\n")
    say("| workers | makespan / s | lower bound / s | busy | overhead / s | CPU / s |\n|--:|--:|--:|--:|--:|--:|")
    for workers in args.workers:
        options = {"threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
        with LocalCluster(n_workers=workers, **options) as cluster, Client(cluster) as client:
            processor = time.process_time()
            taken = makespan(client, needs, args.scale)
            processor = (time.process_time() - processor) / len(needs)
        bound = max(path, total / workers)
        overhead = (taken - bound * args.scale) / len(needs)
        busy, span = total * args.scale / workers / taken, taken / args.scale
        say(f"| {workers} | {span:.0f} | {bound:.0f} | {busy:.0%} | {overhead:.3f} | {processor:.3f} |")


if __name__ == "__main__":
    main()

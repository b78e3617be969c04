"""The order in which stages run, in threads of this process or on workers of other machines.

A stage starts when all stages that it needs have ended. Of those that could start, the first is the one with the
longest chain of stages after it.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from graphlib import TopologicalSorter
from heapq import heappop, heappush
from math import inf
from queue import SimpleQueue

Needs = Mapping[str, set[str]]
#: Starts a stage of some height (`heights`); its future says whether the stage succeeded.
Start = Callable[[str, int], Future[bool]]


def affected(needs: Needs, changed: Iterable[str]) -> Needs:
    """The part of the pipeline that may have to run: what changed, and what stands on it."""
    found = set(changed)
    for name in TopologicalSorter(needs).static_order():
        if needs[name] & found:
            found.add(name)
    return {name: needs[name] & found for name in needs if name in found}


def heights(needs: Needs) -> dict[str, int]:
    """Length of the longest chain of stages that depend on each stage; 0 if none does."""
    found = dict.fromkeys(needs, 0)
    for name in reversed([*TopologicalSorter(needs).static_order()]):
        for other in needs[name]:
            found[other] = max(found[other], found[name] + 1)
    return found


def run_in_order(needs: Needs, start: Start, *, most: float = inf, keep_going: bool = False) -> list[str]:
    """Run stages, each after those that it needs; the names of those that failed.

    Args:
        start: starts one stage.
        most: stages that may have been started and not ended.
        keep_going: after a failure start whatever does not need the failed stage; else nothing more.
    """
    height = heights(needs)
    sorter: TopologicalSorter[str] = TopologicalSorter(needs)
    sorter.prepare()
    ready: list[tuple[int, int, str]] = []
    ended: SimpleQueue[tuple[str, Future[bool]]] = SimpleQueue()
    failed: list[str] = []
    running = 0
    while True:
        for name in sorter.get_ready():
            heappush(ready, (-height[name], -len(needs[name]), name))
        while ready and running < most and (keep_going or not failed):
            name = heappop(ready)[2]
            future = start(name, height[name])
            future.add_done_callback(partial(_put, ended, name))
            running += 1
        if not running:
            return failed
        name, done = ended.get()
        running -= 1
        if done.cancelled():  # it was not started, because another one had failed
            continue
        if done.result():
            sorter.done(name)
        else:
            failed.append(name)


def _put(ended: SimpleQueue[tuple[str, Future[bool]]], name: str, future: Future[bool]) -> None:
    ended.put((name, future))

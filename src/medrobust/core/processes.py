"""Several processes, one stage: who there is, each one's share of the work, and what the others found.

torchrun starts the processes (see `runtime.run_stage`); without it there is one, and every function here is the
plain thing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch.distributed as dist

T = TypeVar("T")


@contextmanager
def joined(backend: str = "gloo") -> Iterator[None]:
    """Inside, the processes that torchrun started know each other; a group that exists already is used.

    gloo serves where only results are exchanged; NCCL is for tensors on GPUs (see `training.distributed`).
    """
    if "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    dist.init_process_group(backend)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 alone writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(rows: np.ndarray) -> np.ndarray:
    """This process's part: every world-th row."""
    return rows[rank() :: world()]


def gather(value: T) -> list[T]:
    """Each process's value, in the order of ranks, everywhere."""
    if world() == 1:
        return [value]
    found: list[T | None] = [None] * world()
    dist.all_gather_object(found, value)
    return found  # type: ignore[return-value]


def from_first(make: Callable[[], T]) -> T:
    """What process 0 makes, everywhere."""
    if world() == 1:
        return make()
    box = [make() if rank() == 0 else None]
    dist.broadcast_object_list(box)
    return box[0]  # type: ignore[return-value]

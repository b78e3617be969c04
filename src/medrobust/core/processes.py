"""Distribute a stage's work over the processes that torchrun starts; without torchrun there is one process."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch.distributed as dist

T = TypeVar("T")


@contextmanager
def process_group(backend: str = "gloo") -> Iterator[None]:
    """Join the process group of torchrun for the duration of the context; an existing group is reused.

    gloo suffices to exchange results; NCCL is needed for tensors on GPUs (see `training.distributed`).
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
    """Rank of this process; only rank 0 writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rows_of_rank(rows: np.ndarray) -> np.ndarray:
    """The rows that this process works on: every `world_size()`-th, from its rank on."""
    return rows[rank() :: world_size()]


def gather(value: T) -> list[T]:
    """Return the values of all processes, ordered by rank, to every process."""
    if world_size() == 1:
        return [value]
    values: list[T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def from_rank_0(make: Callable[[], T]) -> T:
    """Call `make` on rank 0 only and return its result on every process."""
    if world_size() == 1:
        return make()
    result = [make() if rank() == 0 else None]
    dist.broadcast_object_list(result)
    return result[0]  # type: ignore[return-value]

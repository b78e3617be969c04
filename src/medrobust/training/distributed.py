"""Data-parallel training under torchrun: each process takes its share of every batch.

Gradients are averaged in one all-reduce after the backward pass and not, as DistributedDataParallel does, while it
runs: an objective may pass the model any number of times and perturb its weights, and beside the many passes of an
attack, which need no communication, the one reduction is small. Without torchrun every function here does nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


@contextmanager
def processes() -> Iterator[None]:
    """Inside, this process belongs to the group that torchrun describes, if torchrun started it."""
    if "RANK" not in os.environ:
        yield
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 alone writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(rows: np.ndarray) -> np.ndarray:
    """This process's part of a batch: every world-th row."""
    return rows[rank() :: world()]


def average_gradients(model: nn.Module, count: int) -> None:
    """Replace each gradient by the processes' mean, weighted by how many images each had."""
    if world() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() * count for gradient in gradients])
    total = torch.tensor([float(count)], device=flat.device)
    dist.all_reduce(flat)
    dist.all_reduce(total)
    flat /= total
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def average_buffers(model: nn.Module) -> None:
    """Give every process the mean of the floating-point buffers: BatchNorm's statistics come from shares."""
    if world() == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer.div_(world())


def mean(value: float) -> float:
    """The processes' mean of a number."""
    return float(np.mean(gather(value)))


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


def same_everywhere(tensors: list[Tensor]) -> None:
    """Give every process the tensors of process 0."""
    for tensor in tensors if world() > 1 else []:
        dist.broadcast(tensor, 0)

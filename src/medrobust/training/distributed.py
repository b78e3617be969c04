"""Data-parallel training under torchrun: each process takes its share of every batch.

Gradients are averaged in one all-reduce after the backward pass and not, as DistributedDataParallel does, while it
runs: an objective may pass the model any number of times and perturb its weights, and beside the many passes of an
attack, which need no communication, the one reduction is small. Without torchrun every function here does nothing.
"""

import os
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from medrobust.core.processes import process_group, world_size
from medrobust.core.runtime import device


def processes() -> AbstractContextManager[None]:
    """The group of a training: tensors on GPUs travel by NCCL, everything else by gloo.

    NCCL wants a GPU for each process; where several share one, gloo carries its tensors too.
    """
    several = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count()
    own = device().type == "cuda" and not several and os.environ.get("MEDROBUST_DEVICE", "cuda") == "cuda"
    # Were it NCCL alone, objects would travel by it too, and those of all processes over the first GPU.
    return process_group("cpu:gloo,cuda:nccl" if own else "gloo")


def average_gradients(gradients: list[Tensor], count: int) -> None:
    """Replace each gradient by the processes' mean, weighted by how many images each had."""
    if world_size() == 1:
        return
    flat = torch.cat([gradient.flatten() * count for gradient in gradients])
    dist.all_reduce(flat)
    flat /= total(torch.tensor([float(count)], device=flat.device))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def average_buffers(model: nn.Module) -> None:
    """Give every process the mean of the floating-point buffers: BatchNorm's statistics come from shares."""
    if world_size() == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer.div_(world_size())


def total(own: Tensor) -> Tensor:
    """The processes' sum of a tensor."""
    everyone = own.clone()
    if world_size() > 1:
        dist.all_reduce(everyone)
    return everyone


def same_everywhere(tensors: list[Tensor]) -> None:
    """Give every process the tensors of process 0."""
    for tensor in tensors if world_size() > 1 else []:
        dist.broadcast(tensor, 0)

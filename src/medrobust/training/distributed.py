"""Data-parallel training under torchrun: each process works on its share of every batch.

DistributedDataParallel does not fit, because an objective may call the model any number of times and perturb its
weights. Without torchrun the functions here do nothing.
"""

import os
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from medrobust.core.processes import process_group, world_size
from medrobust.core.runtime import device


def training_process_group() -> AbstractContextManager[None]:
    """The process group of a training: NCCL for tensors on GPUs, gloo for everything else.

    NCCL needs one GPU per process. Where processes share a GPU, gloo carries its tensors too.
    """
    shared_gpu = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count()
    nccl = device().type == "cuda" and not shared_gpu and os.environ.get("MEDROBUST_DEVICE", "cuda") == "cuda"
    # NCCL alone would also carry Python objects, those of all processes through the first GPU.
    return process_group("cpu:gloo,cuda:nccl" if nccl else "gloo")


def average_gradients(gradients: list[Tensor], count: int) -> None:
    """Replace each gradient by the mean over processes, weighted by each process's number of images `count`."""
    if world_size() == 1:
        return
    flat = torch.cat([gradient.flatten() * count for gradient in gradients])
    dist.all_reduce(flat)
    flat /= sum_over_processes(torch.tensor([float(count)], device=flat.device))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def average_buffers(model: nn.Module) -> None:
    """Replace floating-point buffers by their mean over processes: BatchNorm sees only a process's own images."""
    if world_size() == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer.div_(world_size())


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of all processes' tensors; the argument is not changed."""
    total = tensor.clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def broadcast_from_rank_0(tensors: list[Tensor]) -> None:
    """Overwrite the tensors of every process with those of rank 0."""
    for tensor in tensors if world_size() > 1 else []:
        dist.broadcast(tensor, 0)

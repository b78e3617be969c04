"""Optimiser, schedule, number format and class weights of a training."""

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from medrobust.core.params.training import TrainParams
from medrobust.data.store import Subset

Tensors = tuple[Tensor, ...] | list[Tensor]


def build_optimiser(model: nn.Module, settings: TrainParams) -> torch.optim.Optimizer:
    """The optimiser by its name in torch, over what is trained; SGD has momentum 0.9."""
    # Adam in one pass over memory: a quarter of the seconds on a CPU, where it is a third of a step at batch 16.
    options: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}, "Adam": {"fused": True}}
    extra = options.get(settings.optimiser, {})
    kind = getattr(torch.optim, settings.optimiser)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    built: torch.optim.Optimizer = kind(trained, lr=settings.lr, weight_decay=settings.weight_decay, **extra)
    return built


def build_scheduler(optimiser: torch.optim.Optimizer, settings: TrainParams) -> Any:
    """The schedule by its name in torch, stepped once an epoch."""
    if settings.scheduler == "StepLR":
        return torch.optim.lr_scheduler.StepLR(optimiser, max(settings.epochs // 3, 1), gamma=0.3)
    if settings.scheduler == "CosineAnnealingLR":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs)
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", factor=0.3, patience=1)


def build_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """An exponential moving average of weights and buffers (Polyak & Juditsky 1992); None for decay 0.

    The decay of update t is min(decay, (1 + t) / (10 + t)), so that a short training is not held at its start.
    """
    if not decay:
        return None

    def average(old: Tensors, new: Tensors, count: Tensor | int) -> None:
        if not old[0].is_floating_point():
            torch._foreach_copy_(old, new)
            return
        done = int(count)
        kept = min(decay, (1 + done) / (10 + done))
        torch._foreach_mul_(old, kept)
        torch._foreach_add_(old, torch._foreach_mul(new, 1 - kept))

    # All tensors of a format at once: one by one, a GPU would be waited for at each of them.
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def precision(settings: TrainParams, device: torch.device) -> torch.dtype:
    """The number format of training; `auto` is bf16 on a GPU that has it, float32 elsewhere."""
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if settings.precision != "auto":
        return named[settings.precision]
    # Older GPUs compute it in software, slower than float32.
    has = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has else torch.float32


def autocast(settings: TrainParams, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The context of forward passes in that format."""
    dtype = precision(settings, device)
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def class_weights(subset: Subset, kind: str, device: torch.device) -> Tensor | None:
    """`balanced`: inverse class frequency with mean 1 over images, K; `none`: None."""
    if kind == "none":
        return None
    counts = np.bincount(subset.labels, minlength=len(subset.classes))
    return torch.tensor(len(subset) / (len(counts) * np.maximum(counts, 1)), dtype=torch.float32, device=device)

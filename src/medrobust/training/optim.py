"""Optimiser, scheduler, EMA, number format and class weights of a training."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from medrobust.core.params.training import TrainParams
from medrobust.data.store import Subset

Tensors = tuple[Tensor, ...] | list[Tensor]


def build_optimiser(model: nn.Module, settings: TrainParams) -> torch.optim.Optimizer:
    """The torch optimiser of that name over the trainable parameters; SGD has momentum 0.9."""
    # The fused Adam passes over memory once. On a CPU it takes a quarter of the time of the plain Adam, which is
    # a third of a training step at batch size 16.
    options: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}, "Adam": {"fused": True}}
    extra = options.get(settings.optimiser, {})
    kind = getattr(torch.optim, settings.optimiser)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return kind(trainable, lr=settings.lr, weight_decay=settings.weight_decay, **extra)


def build_scheduler(optimiser: torch.optim.Optimizer, settings: TrainParams) -> Any:
    """The torch scheduler of that name, to be stepped once per epoch."""
    if settings.scheduler == "StepLR":
        return torch.optim.lr_scheduler.StepLR(optimiser, max(settings.epochs // 3, 1), gamma=0.3)
    if settings.scheduler == "CosineAnnealingLR":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs)
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", factor=0.3, patience=1)


def build_ema(model: nn.Module, decay: float) -> AveragedModel | None:
    """An exponential moving average of weights and buffers (Polyak & Juditsky 1992); None for decay 0.

    The decay of update t is min(decay, (1 + t) / (10 + t)), so that the average of a short training is not
    dominated by the initial weights.
    """
    if not decay:
        return None

    def average(old: Tensors, new: Tensors, count: Tensor | int) -> None:
        if not old[0].is_floating_point():
            torch._foreach_copy_(old, new)
            return
        updates = int(count)
        current_decay = min(decay, (1 + updates) / (10 + updates))
        torch._foreach_mul_(old, current_decay)
        torch._foreach_add_(old, torch._foreach_mul(new, 1 - current_decay))

    # All tensors of a format in one call: one call per tensor would wait for the GPU each time.
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def precision(settings: TrainParams, device: torch.device) -> torch.dtype:
    """The number format of training; `auto` is bf16 on a GPU that computes it in hardware, else float32."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if settings.precision != "auto":
        return dtypes[settings.precision]
    # Older GPUs emulate bf16 in software, slower than float32.
    in_hardware = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if in_hardware else torch.float32


def autocast(settings: TrainParams, device: torch.device) -> torch.autocast:
    """The context for forward passes in the number format of training."""
    dtype = precision(settings, device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def class_weights(subset: Subset, kind: str, device: torch.device) -> Tensor | None:
    """Weights of the K classes: `balanced` = inverse class frequency, mean 1 over images; `none` = None."""
    if kind == "none":
        return None
    counts = np.bincount(subset.labels, minlength=len(subset.classes))
    return torch.tensor(len(subset) / (len(counts) * np.maximum(counts, 1)), dtype=torch.float32, device=device)

"""The one training loop: clean or adversarial is a matter of the objective. It resumes where it was killed."""

import contextlib
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack
from medrobust.attacks.random import image_seeds
from medrobust.data.augment import build_augmentation
from medrobust.data.store import Subset
from medrobust.errors import UserError
from medrobust.evaluation import batches, predict
from medrobust.metrics import balanced_accuracy, confusion
from medrobust.params.training import AugmentParams, TrainParams
from medrobust.records import atomic_file
from medrobust.runtime import WORK, progress, say
from medrobust.training.objectives import Objective

#: A loss this many times that of a uniform guess is taken for divergence.
DIVERGED = 50.0


@dataclass
class Fit:
    """What training gave: the history, and the best epoch's weights."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_value: float = -1.0
    best_epoch: int = -1
    best_state: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One training: what to fit, on what, how.

    Attributes:
        model: trained in place; ends with the best epoch's weights.
        train, val: images; the best epoch is the one with the highest value on `val`.
        settings: epochs, optimiser, batch size, schedule, precision.
        augment: changes of training images.
        objective: the loss of a batch.
        attack: validation images are attacked with it; None = clean validation.
        seed: of order, augmentation and attacks.
        key: of the resume file; None = not resumable. A hash of all that decides the result.
    """

    model: nn.Module
    train: Subset
    val: Subset
    settings: TrainParams
    augment: AugmentParams
    objective: Objective
    attack: Attack | None
    seed: int
    key: str | None = None


def fit(job: Job, on_epoch: Callable[[int, float], None] | None = None) -> Fit:
    """Train for `settings.epochs` epochs and leave the best epoch's weights in the model.

    Args:
        job: the training.
        on_epoch: called with each epoch's number and value; may raise to stop (a pruned trial).

    Raises:
        UserError: the loss is NaN or diverges; the message names epoch, step and learning rate.
    """
    torch.manual_seed(job.seed)
    optimiser = build_optimiser(job.model, job.settings)
    scheduler = build_scheduler(optimiser, job.settings)
    augmentation = build_augmentation(job.augment)
    result, first = _resume(job, optimiser, scheduler)
    for epoch in range(first, job.settings.epochs):
        loss = _epoch(job, epoch, optimiser, augmentation, result)
        value = validate(job)
        robust = {"val_robust_balanced_accuracy": value[1]} if job.attack else {}
        lr = optimiser.param_groups[0]["lr"]
        result.history.append({"loss": loss, "val_balanced_accuracy": value[0], **robust, "lr": lr})
        say(
            f"epoch {epoch + 1}/{job.settings.epochs}: "
            + ", ".join(f"{k} {v:.4g}" for k, v in result.history[-1].items())
        )
        if value[-1] > result.best_value:
            state = {key: tensor.detach().clone() for key, tensor in job.model.state_dict().items()}
            result.best_value, result.best_epoch, result.best_state = value[-1], epoch, state
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(value[-1])
        else:
            scheduler.step()
        if job.key:
            _keep(job, optimiser, scheduler, result)
        if on_epoch:
            on_epoch(epoch, value[-1])
    job.model.load_state_dict(result.best_state)
    return result


def validate(job: Job) -> tuple[float, ...]:
    """Balanced accuracy on the validation images: clean, and attacked where the job has an attack."""
    found = []
    for attack in (None, job.attack) if job.attack else (None,):
        preds = predict(job.model, job.val, attack, job.seed).argmax(1)
        found.append(balanced_accuracy(confusion(job.val.labels, preds, len(job.val.classes))))
    return tuple(found)


def _epoch(job: Job, epoch: int, optimiser: Any, augmentation: nn.Module, result: Fit) -> float:
    """One pass over the training images; the mean loss."""
    device, size = next(job.model.parameters()).device, job.settings.batch_size
    order = np.random.default_rng([job.seed, epoch]).permutation(len(job.train))
    # A last batch of one image has no batch statistics.
    parts = [order[rows] for rows in batches(len(order), size) if len(rows) > 1]
    scaler = torch.amp.GradScaler(device.type, enabled=precision(job.settings, device) == torch.float16)
    job.model.train()
    total = 0.0
    for step, rows in enumerate(progress(parts, f"epoch {epoch + 1}", unit="batches")):
        images, labels = augmentation(job.train.batch(rows).to(device)), job.train.targets(rows).to(device)
        seeds = image_seeds(job.train.ids[rows], job.seed + epoch + 1).to(device)
        optimiser.zero_grad(set_to_none=True)
        with _autocast(job.settings, device):
            loss = job.objective(job.model, images, labels, seeds)
        value = float(loss.detach())
        if not math.isfinite(value) or value > DIVERGED * math.log(len(job.train.classes)):
            good = f"best so far: epoch {result.best_epoch + 1}" if result.history else "no epoch was finished"
            found = f"loss {value:g} at epoch {epoch + 1}, step {step + 1} ({good})"
            lr = optimiser.param_groups[0]["lr"]
            raise UserError(
                "training", found, f"Lower the learning rate (now {lr:g}), or set train.precision: fp32"
            )
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        total += value * len(rows)
    return total / sum(map(len, parts))


def precision(settings: TrainParams, device: torch.device) -> torch.dtype:
    """The number format of training; `auto` is bf16 on a GPU that has it, float32 elsewhere."""
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if settings.precision != "auto":
        return named[settings.precision]
    has = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if has else torch.float32


def _autocast(settings: TrainParams, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    dtype = precision(settings, device)
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def build_optimiser(model: nn.Module, settings: TrainParams) -> torch.optim.Optimizer:
    """The optimiser by its name in torch; SGD has momentum 0.9."""
    extra: dict[str, Any] = {"momentum": 0.9} if settings.optimiser == "SGD" else {}
    kind = getattr(torch.optim, settings.optimiser)
    built: torch.optim.Optimizer = kind(
        model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, **extra
    )
    return built


def build_scheduler(optimiser: torch.optim.Optimizer, settings: TrainParams) -> Any:
    """The schedule by its name in torch, stepped once an epoch."""
    if settings.scheduler == "StepLR":
        return torch.optim.lr_scheduler.StepLR(optimiser, max(settings.epochs // 3, 1), gamma=0.3)
    if settings.scheduler == "CosineAnnealingLR":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs)
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", factor=0.3, patience=1)


def class_weights(subset: Subset, kind: str, device: torch.device) -> Tensor | None:
    """`balanced`: inverse class frequency with mean 1 over images, K; `none`: None."""
    if kind == "none":
        return None
    counts = np.bincount(subset.labels, minlength=len(subset.classes))
    return torch.tensor(len(subset) / (len(counts) * np.maximum(counts, 1)), dtype=torch.float32, device=device)


def resume_key(facts: dict[str, Any]) -> str:
    """A hash of all that decides a training's result."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def resume_path(key: str) -> Path:
    """Where a training of that key keeps its state; deleted when its stage is done."""
    return WORK / "resume" / f"{key}.pt"


def _keep(job: Job, optimiser: Any, scheduler: Any, result: Fit) -> None:
    assert job.key is not None
    state = {
        "model": job.model.state_dict(), "optimiser": optimiser.state_dict(), "scheduler": scheduler.state_dict(),
        "result": vars(result), "rng": torch.get_rng_state(),
    }  # fmt: skip
    with atomic_file(resume_path(job.key)) as temporary:
        torch.save(state, temporary)


def _resume(job: Job, optimiser: Any, scheduler: Any) -> tuple[Fit, int]:
    """The state after the last finished epoch, if a resume file is there; else a fresh start."""
    if not job.key or not resume_path(job.key).is_file():
        return Fit(), 0
    state = torch.load(resume_path(job.key), weights_only=True)
    job.model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    scheduler.load_state_dict(state["scheduler"])
    torch.set_rng_state(state["rng"])
    result = Fit(**state["result"])
    say(f"resuming after epoch {len(result.history)}")
    return result, len(result.history)

"""All that a training is in the middle of: what the resume file keeps, and how a fit goes on from it."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from medrobust.core.params.training import TrainParams
from medrobust.core.processes import from_rank_0, gather, rank, world_size
from medrobust.core.records import atomic_file
from medrobust.core.runtime import WORK, say
from medrobust.training.optim import build_average, build_optimiser, build_scheduler, precision


@dataclass
class Fit:
    """What training gave: the history, the best epoch's weights, and why it stopped early ("" if it did not)."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_value: float = -1.0
    best_epoch: int = -1
    best_state: dict[str, Tensor] = field(default_factory=dict)
    stopped: str = ""


@dataclass
class State:
    """A training between two epochs.

    Attributes:
        model: what is trained.
        optimiser, scheduler, scaler: torch's.
        average: the moving average of the weights; None = none.
        memory: tensors that the objective keeps from step to step.
        result: what is known so far.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    scheduler: Any
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    memory: dict[str, Tensor] = field(default_factory=dict)
    result: Fit = field(default_factory=Fit)

    @classmethod
    def fresh(cls, model: nn.Module, settings: TrainParams) -> "State":
        """The state before the first epoch."""
        device = next(model.parameters()).device
        optimiser = build_optimiser(model, settings)
        scaler = torch.amp.GradScaler(device.type, enabled=precision(settings, device) == torch.float16)
        average = build_average(model, settings.ema)
        return cls(model, optimiser, build_scheduler(optimiser, settings), scaler, average)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def judged(self) -> nn.Module:
        """The model that is validated and kept: the average, where there is one."""
        return self.model if self.average is None else self.average.module

    def keep(self, key: str) -> None:
        """Write the state to the key's resume file, whole or not at all."""
        result = dict(vars(self.result))
        if self.result.best_epoch == len(self.result.history) - 1:
            result["best_state"] = self.judged.state_dict()  # the same weights; torch writes a storage once
        content = {
            "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(),
            "scheduler": self.scheduler.state_dict(), "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "result": result, "own": gather({**_random_state(self.device), "memory": _on_the_host(self.memory)}),
        }  # fmt: skip
        if rank() == 0:
            # Given a path instead, torch would not tell that the disk is full.
            with atomic_file(resume_path(key)) as temporary, temporary.open("wb") as file:
                torch.save(content, file)

    def restore(self, key: str | None) -> None:
        """Take up the state of the key's resume file, if there is one."""
        content = from_rank_0(lambda: _read(key))
        if content is None:
            return
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.scheduler.load_state_dict(content["scheduler"])
        self.scaler.load_state_dict(content["scaler"])
        if self.average:
            self.average.load_state_dict(content["average"])
        if len(content["own"]) == world_size():  # else: other processes, with their own seeds and other shares
            own = content["own"][rank()]
            _set_random_state(own, self.device)
            for name, (tensor, gradient) in own["memory"].items():
                self.memory[name] = tensor.to(self.device).requires_grad_(True)
                self.memory[name].grad = None if gradient is None else gradient.to(self.device)
        self.result = Fit(**content["result"])
        say(f"resuming after epoch {len(self.result.history)}")


def resume_key(facts: dict[str, Any]) -> str:
    """A hash of all that decides a training's result."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def resume_path(key: str) -> Path:
    """Where a training of that key keeps its state; deleted when its stage is done."""
    return WORK / "resume" / f"{key}.pt"


def forget(key: str) -> None:
    """Remove the key's state, and what a kill in the middle of writing it left."""
    path = resume_path(key)
    for left in (path, *path.parent.glob(f".{path.stem}.*.tmp{path.suffix}")):
        left.unlink(missing_ok=True)


def _read(key: str | None) -> Any:
    if not key or not resume_path(key).is_file():
        return None
    return torch.load(resume_path(key), weights_only=True, map_location="cpu")


def _on_the_host(memory: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Tensors and their gradients, by name, where every process can read them."""
    return {
        name: (tensor.detach().cpu(), None if tensor.grad is None else tensor.grad.cpu())
        for name, tensor in memory.items()
    }


def _random_state(device: torch.device) -> dict[str, Any]:
    """The state of the CPU's generator and, where a GPU trains, of that GPU's."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)

"""The state of a training between two epochs, and the resume file that stores it."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from medrobust.core.disk import remove_killed_writes
from medrobust.core.params.training import TrainParams
from medrobust.core.processes import from_rank_0, gather, rank, world_size
from medrobust.core.records import atomic_file
from medrobust.core.runtime import lasting_folder, say
from medrobust.training.optim import build_ema, build_optimiser, build_scheduler, precision


@dataclass
class FitResult:
    """The result of a training so far."""

    history: list[dict[str, float]] = field(default_factory=list)  # metrics of each epoch
    best_value: float = -1.0  # of the metric that selects the best epoch
    best_epoch: int = -1
    best_state: dict[str, Tensor] = field(default_factory=dict)  # weights of the best epoch
    stopped: str = ""  # why training stopped early; "" if it did not


@dataclass
class TrainingState:
    """A training between two epochs."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    scheduler: Any
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None  # moving average of the weights; None = no EMA
    memory: dict[str, Tensor] = field(default_factory=dict)  # tensors that the objective keeps from step to step
    result: FitResult = field(default_factory=FitResult)

    @classmethod
    def initial(cls, model: nn.Module, settings: TrainParams) -> "TrainingState":
        """The state before the first epoch."""
        device = next(model.parameters()).device
        optimiser = build_optimiser(model, settings)
        scaler = torch.amp.GradScaler(device.type, enabled=precision(settings, device) == torch.float16)
        ema = build_ema(model, settings.ema)
        return cls(model, optimiser, build_scheduler(optimiser, settings), scaler, ema)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is validated and whose weights are the result: the EMA if there is one."""
        return self.model if self.ema is None else self.ema.module

    def save(self, key: str) -> None:
        """Write the resume file of the key atomically."""
        own = {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "memory": {
                name: (tensor.detach().cpu(), None if tensor.grad is None else tensor.grad.cpu())
                for name, tensor in self.memory.items()
            },
        }
        result = dict(vars(self.result))
        if self.result.best_epoch == len(self.result.history) - 1:
            # The same weights by reference: torch writes each storage once.
            result["best_state"] = self.evaluated_model.state_dict()
        content = {
            "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(),
            "scheduler": self.scheduler.state_dict(), "scaler": self.scaler.state_dict(),
            "average": self.ema.state_dict() if self.ema else None,
            "result": result, "own": gather(own),
        }  # fmt: skip
        if rank() == 0:
            # An open file, because torch does not report a full disk when it is given a path.
            with atomic_file(resume_path(key)) as temporary, temporary.open("wb") as file:
                torch.save(content, file)

    def restore(self, key: str) -> None:
        """Continue from the resume file of the key, if there is one."""
        path = resume_path(key)
        content = from_rank_0(
            lambda: torch.load(path, weights_only=True, map_location="cpu") if path.is_file() else None
        )
        if content is None:
            return
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.scheduler.load_state_dict(content["scheduler"])
        self.scaler.load_state_dict(content["scaler"])
        if self.ema:
            self.ema.load_state_dict(content["average"])
        # With another number of processes, the random states and shares of the batches are not comparable.
        if len(content["own"]) == world_size():
            of_process = content["own"][rank()]
            torch.set_rng_state(of_process["cpu"])
            if self.device.type == "cuda" and of_process["cuda"] is not None:
                torch.cuda.set_rng_state(of_process["cuda"], self.device)
            for name, (tensor, gradient) in of_process["memory"].items():
                self.memory[name] = tensor.to(self.device).requires_grad_(True)
                self.memory[name].grad = None if gradient is None else gradient.to(self.device)
        self.result = FitResult(**content["result"])
        say(f"resuming after epoch {len(self.result.history)}")


def resume_key(facts: dict[str, Any]) -> str:
    """A hash of all that decides a training's result."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def resume_path(key: str) -> Path:
    """The resume file of a training; it is deleted when its stage has finished."""
    return lasting_folder() / "resume" / f"{key}.pt"


def delete_resume_file(key: str) -> None:
    """Delete the key's resume file, and temporary files left by a process that was killed while writing it."""
    path = resume_path(key)
    path.unlink(missing_ok=True)
    remove_killed_writes(path.parent.glob(f".{path.stem}.*"))

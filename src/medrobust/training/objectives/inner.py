"""The inner maximisation: how a training attacks its own model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from medrobust.attacks.base import frozen
from medrobust.attacks.methods.iterative import PGD
from medrobust.attacks.problem import Losses
from medrobust.attacks.state import AttackState
from medrobust.core.params.training import AdvParams
from medrobust.core.seeds import uniform
from medrobust.training.objectives.base import Step
from medrobust.training.settings import validation_steps

#: Largest absolute gradient by the logits, per image, after scaling for a backward pass in float16.
SCALED_MAXIMUM = 2.0**8
#: Random stream of an image's radius. No attack in training uses it.
RADIUS_STREAM = 1 << 21


def training_attack(adv: AdvParams, *, stop_when_fooled: bool = False) -> PGD:
    """The PGD of the `adv` block at its radius `eps`; in training every image takes all steps."""
    alpha = None if adv.alpha == "auto" else adv.alpha
    return PGD(
        eps=adv.eps, alpha=alpha, steps=adv.steps, random_start=adv.random_start, allow_weak=adv.allow_weak,
        stop_when_fooled=stop_when_fooled, keep="last",
    )  # fmt: skip


def validation_attack(adv: AdvParams, single_step: bool) -> PGD:
    """The PGD of robust validation, which stops per image once the model is fooled.

    alpha is auto unless the number of steps is `adv.steps`.
    """
    steps = validation_steps(adv, single_step)
    same = steps == adv.steps
    return training_attack(
        adv.model_copy(update={"steps": steps, "alpha": adv.alpha if same else "auto"}), stop_when_fooled=True
    )


def attack_with_pgd(step: Step, adv: AdvParams | None = None) -> Tensor:
    """The batch's images after PGD on the current model (Madry et al. 2018, equation 2.1).

    With `adv.eps_min`, each image has a radius of its own, uniform between `eps_min` and `eps`.
    """
    settings = adv or step.require_adv()
    attack, low, high = training_attack(settings), settings.eps_min, settings.eps

    def attacked() -> Tensor:
        view = attack_view(step)
        if low is None:
            return attack(view, step.images, step.labels, seeds=step.seeds)
        radii = low + (high - low) * uniform(step.seeds, RADIUS_STREAM, ())
        with frozen(view):
            problem = attack.problem(view, step.images, step.labels, step.seeds, radii)
            return attack.search(problem, step.images).detach()

    return step.cached("adv", attacked)


@dataclass(frozen=True, kw_only=True)
class Ascent(PGD):
    """PGD that maximises `objective`, which maps logits n×K to a sum over images, instead of a named loss."""

    objective: Callable[[Tensor], Tensor] = field(repr=False)

    def losses(self, state: AttackState) -> Losses:
        return lambda logits, _: self.objective(logits)


def ascend(
    step: Step, start: Tensor, loss: Callable[[Tensor], Tensor], *, eps: float, alpha: float, steps: int
) -> Tensor:
    """Signed gradient ascent on a loss of the logits, inside the ball around the batch's images.

    `start` holds n×C×H×W images. `loss` maps logits n×K to a sum over images.
    """
    attack = Ascent(
        eps=eps, alpha=alpha, steps=steps, objective=loss, random_start=False, stop_when_fooled=False, keep="last",
        allow_weak=True,
    )  # fmt: skip
    return attack(attack_view(step), step.images, step.labels, seeds=step.seeds, start=start)


def attack_view(step: Step) -> nn.Module:
    """The model as the training attack sees it, according to `adv.batch_norm` and `adv.attack_precision`."""
    adv = step.require_adv()
    device = step.images.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    dtype = dtype if adv.attack_precision == "train" else None
    if dtype is None and adv.batch_norm == "eval":
        return step.model
    return _AttackView(step.model, dtype, batch_statistics=adv.batch_norm == "batch")


class _AttackView(nn.Module):
    """A model in another number format, or with BatchNorm on batch statistics; its weights must not change."""

    def __init__(self, model: nn.Module, dtype: torch.dtype | None, batch_statistics: bool) -> None:
        super().__init__()
        self.model, self.dtype, self.batch_statistics = model, dtype, batch_statistics
        self.cast_weights = {} if dtype is None else _cast_weights(model, dtype)

    def train(self, mode: bool = True) -> "_AttackView":
        super().train(mode)
        for module in _batch_norms(self) if self.batch_statistics else []:
            module.training = True
        return self

    def forward(self, images: Tensor) -> Tensor:
        autocast = torch.autocast(images.device.type, dtype=self.dtype, enabled=self.dtype is not None)
        needs_scaling = self.dtype == torch.float16 and images.requires_grad
        scaler = _GradientScaler(whole_batch=self.batch_statistics) if needs_scaling else None
        images = images if scaler is None else scaler.unscale_at(images)
        with autocast, freeze_running_statistics(self.model) if self.batch_statistics else nullcontext():
            logits: Tensor = functional_call(self.model, self.cast_weights, (images,))
        return logits.float() if scaler is None else scaler.scale_at(logits.float())


class _GradientScaler:
    """Scales float16 gradients, which would round to 0, at the logits, and scales them back at the images."""

    def __init__(self, *, whole_batch: bool) -> None:
        self.whole_batch = whole_batch
        self.factor = torch.ones(())

    def scale_at(self, logits: Tensor) -> Tensor:
        """The logits, with gradients scaled when they enter the network."""
        if logits.requires_grad:
            logits.register_hook(self._scale)
        return logits

    def unscale_at(self, images: Tensor) -> Tensor:
        """The images, with gradients scaled back when they leave the network."""
        view = images.view_as(images)
        view.register_hook(lambda gradient: gradient / self.factor.view(-1, *[1] * (gradient.ndim - 1)))
        return view

    def _scale(self, gradient: Tensor) -> Tensor:
        largest = gradient.abs().amax((0, 1) if self.whole_batch else 1, keepdim=True)
        self.factor = SCALED_MAXIMUM / largest.clamp_min(1e-30)
        return gradient * self.factor


def _cast_weights(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights and biases by name, cast once per attack: autocast caches only parameters that need a gradient."""
    # Subclasses of layers are left to autocast, because they may compute with their weights in float32 first.
    layers = [module for module in model.modules() if type(module) in (nn.Conv2d, nn.Linear)]
    of_layers = {id(parameter) for layer in layers for parameter in layer.parameters(recurse=False)}
    return {name: value.detach().to(dtype) for name, value in model.named_parameters() if id(value) in of_layers}


@contextmanager
def freeze_running_statistics(model: nn.Module) -> Iterator[None]:
    """Keep the running statistics of BatchNorm layers in train mode unchanged within the context."""
    modules = _batch_norms(model)
    before = [module.track_running_stats for module in modules]
    for module in modules:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module, flag in zip(modules, before, strict=True):
            module.track_running_stats = flag


def _batch_norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]

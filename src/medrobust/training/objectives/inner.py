"""The inner maximisation: how a training attacks its own model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from medrobust.attacks.base import frozen, input_gradient, project
from medrobust.attacks.methods.pgd import PGD
from medrobust.core.params.training import AdvParams
from medrobust.training.objectives.base import Step
from medrobust.training.settings import validation_steps

#: What the largest of an image's gradients by the logits becomes for its way through a network in float16.
RAISED = 2.0**8


def training_attack(adv: AdvParams, *, stop_when_fooled: bool = False) -> PGD:
    """The PGD of the `adv` block; in training every image takes all steps."""
    alpha = None if adv.alpha == "auto" else adv.alpha
    return PGD(eps=adv.eps, alpha=alpha, steps=adv.steps, stop_when_fooled=stop_when_fooled)


def validation_attack(adv: AdvParams, single_step: bool) -> PGD:
    """The PGD of robust validation, where fooled images leave; alpha is auto unless its steps are `adv.steps`."""
    steps = validation_steps(adv, single_step)
    same = steps == adv.steps
    return training_attack(
        adv.model_copy(update={"steps": steps, "alpha": adv.alpha if same else "auto"}), stop_when_fooled=True
    )


def attack_with_pgd(step: Step, adv: AdvParams | None = None) -> Tensor:
    """The batch's images after PGD on the current model (Madry et al. 2018, equation 2.1)."""
    chosen = adv or step.attacked()
    attack = training_attack(chosen)
    return step.once("adv", lambda: attack(attack_view(step), step.images, step.labels, seeds=step.seeds))


def ascend(
    step: Step, start: Tensor, loss: Callable[[Tensor], Tensor], *, eps: float, alpha: float, steps: int
) -> Tensor:
    """Signed gradient ascent on any loss of the logits, inside the ball around the batch's images.

    Args:
        step: the step; its model is attacked.
        start: images, n×C×H×W, to start from.
        loss: logits n×K -> a number, a sum over images.
        eps: radius; infinity = no ball.
        alpha: step size.
        steps: how many.
    """
    view, current = attack_view(step), start
    with frozen(view):
        for _ in range(steps):
            _, _, gradient = input_gradient(view, current, lambda logits, _: loss(logits))
            current = project(current + alpha * gradient.sign(), step.images, eps)
    return current.detach()


def attack_view(step: Step) -> nn.Module:
    """The model as the training attack sees it: `adv.batch_norm` and `adv.attack_precision` decide."""
    adv = step.attacked()
    device = step.images.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    dtype = dtype if adv.attack_precision == "train" else None
    if dtype is None and adv.batch_norm == "eval":
        return step.model
    return _View(step.model, dtype, batch=adv.batch_norm == "batch")


class _View(nn.Module):
    """A model in another number format, or with BatchNorm on the batch's own statistics.

    It is made for one attack, during which the model's parameters stay as they are.

    Args:
        model: whose parameters these are.
        dtype: of the forward pass; None = float32. In float16 gradients are scaled on their way.
        batch: whether BatchNorm uses the batch's statistics. The running ones stay untouched.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None, batch: bool) -> None:
        super().__init__()
        self.model, self.dtype, self.batch = model, dtype, batch
        self.cast = {} if dtype is None else _cast(model, dtype)

    def train(self, mode: bool = True) -> "_View":
        super().train(mode)
        for module in _batch_norms(self) if self.batch else []:
            module.training = True
        return self

    def forward(self, images: Tensor) -> Tensor:
        precision = torch.autocast(images.device.type, dtype=self.dtype, enabled=self.dtype is not None)
        scale = _Scale(batch=self.batch) if self.dtype == torch.float16 and images.requires_grad else None
        images = images if scale is None else scale.lower(images)
        with precision, untracked(self.model) if self.batch else nullcontext():
            logits: Tensor = functional_call(self.model, self.cast, (images,))
        return logits.float() if scale is None else scale.higher(logits.float())


class _Scale:
    """Scales the gradients of one pass where they enter the network, and back where they leave it.

    Float16 ends at 6e-8: the gradient of an image that is classified with confidence would round to 0 on its way,
    and the image stay what it is. Each image has a scale of its own, by its own gradient; with the statistics of a
    batch, which mix gradients, all have one.
    """

    def __init__(self, *, batch: bool) -> None:
        self.batch = batch
        self.factor = torch.ones(())

    def higher(self, logits: Tensor) -> Tensor:
        """The logits, through which gradients come scaled."""
        if logits.requires_grad:
            logits.register_hook(self._raise)
        return logits

    def lower(self, images: Tensor) -> Tensor:
        """The images, through which gradients leave as they would have without scale."""
        inner = images.view_as(images)
        inner.register_hook(lambda gradient: gradient / self.factor.view(-1, *[1] * (gradient.ndim - 1)))
        return inner

    def _raise(self, gradient: Tensor) -> Tensor:
        largest = gradient.abs().amax((0, 1) if self.batch else 1, keepdim=True)
        self.factor = RAISED / largest.clamp_min(1e-30)
        return gradient * self.factor


def _cast(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights and biases, by name, that autocast would cast to this format in every pass of an attack.

    It remembers a cast only for parameters that need a gradient, which those of an attacked model do not. A
    subclass of a layer may do more with its weights than multiply; those are left to autocast.
    """
    layers = [module for module in model.modules() if type(module) in (nn.Conv2d, nn.Linear)]
    own = {id(parameter) for layer in layers for parameter in layer.parameters(recurse=False)}
    return {name: value.detach().to(dtype) for name, value in model.named_parameters() if id(value) in own}


@contextmanager
def untracked(model: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm in train mode leaves its running statistics as they are."""
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

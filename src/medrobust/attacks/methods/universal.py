"""Universal perturbation: one pattern for all images, fitted on training patients, applied to test patients."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, QueryCounter, frozen, gradient_of
from medrobust.attacks.projection import Norm, ascent, project
from medrobust.attacks.targets import attack_loss
from medrobust.core.errors import UserError
from medrobust.core.params.base import Count, Positive
from medrobust.core.seeds import uniform

if TYPE_CHECKING:
    from medrobust.data.store import Subset


@dataclass(frozen=True, kw_only=True)
class Universal(Attack):
    """One pattern that fools as many images as possible (Moosavi-Dezfooli et al. 2017), fitted by gradient steps.

    Steps follow the gradient of a batch's mean loss. The loss of each image is clipped from above at `clip`, so
    that images that are already fooled do not dominate (Shafahi et al. 2020, "Universal adversarial training").
    `fit_images` is the largest number of training images, evenly spread over the subset. `step`, a share of eps,
    falls linearly to zero. `fitted` has patterns by model and radius.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    epochs: Count = 30
    batch_size: Count = 64
    fit_images: Count = 1000
    step: Positive = 0.1
    clip: Positive = 9.0
    train: "Subset | None" = field(default=None, repr=False, compare=False)
    fitted: WeakKeyDictionary[nn.Module, dict[float, Tensor]] = field(
        default_factory=WeakKeyDictionary, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step * self.epochs * 0.5 < 1:
            found = f"step {self.step:g} over {self.epochs} epochs"
            raise UserError("attack", found, "Too little to reach eps: use more epochs or a larger step")

    @property
    def cost(self) -> float:
        """One query per image; all images share the fit."""
        return 1.0

    def with_training(self, train: "Subset") -> "Universal":
        return replace(self, train=train, fitted=WeakKeyDictionary())

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        attacked = model.model if isinstance(model, QueryCounter) else model
        patterns = self.fitted.setdefault(attacked, {})
        if self.eps not in patterns:
            if self.train is None:
                raise UserError("attack.universal", "no training images", "Call with_training(subset) first")
            patterns[self.eps] = fit(self, attacked, self.train).cpu()
        return project(images + patterns[self.eps].to(images), images, self.eps, self.norm)


def fit(attack: Universal, model: nn.Module, train: "Subset") -> Tensor:
    """A pattern, 1×C×H×W inside the ball around zero, that maximises the loss of training images."""
    like = next(model.parameters())
    rows = torch.linspace(0, len(train) - 1, min(attack.fit_images, len(train))).round().long()
    pattern = torch.zeros_like(train.batch([0])).to(like)
    seed = torch.tensor([len(rows)])
    total = attack.epochs * -(-len(rows) // attack.batch_size)
    done = 0
    with frozen(model):
        for epoch in range(attack.epochs):
            order = rows[uniform(seed, epoch, (len(rows),))[0].argsort()]
            for batch in order.split(attack.batch_size):
                images = train.batch(batch.numpy()).to(like)
                labels = train.targets(batch.numpy()).to(like.device)
                shift = pattern.clone().requires_grad_(True)
                with torch.enable_grad(), torch.autocast(like.device.type, enabled=False):
                    losses = attack_loss(model((images + shift).clamp(0, 1)), labels, None, "ce")
                    gradient = gradient_of(losses.clamp_max(attack.clip).mean(), shift)
                size = attack.step * attack.eps * (1 - done / total)
                pattern = _project(pattern + size * ascent(gradient, attack.norm), attack.eps, attack.norm)
                done += 1
    return pattern


def _project(pattern: Tensor, eps: float, norm: Norm) -> Tensor:
    if norm == "Linf":
        return pattern.clamp(-eps, eps)
    return pattern * (eps / pattern.norm().clamp_min(eps))

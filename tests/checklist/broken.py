"""Faults that have been published as robustness, each as a minimal model or attack."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack
from medrobust.attacks.projection import project
from medrobust.core.seeds import uniform


class Wrapper(nn.Module):
    """Base of the faults: wraps a sound model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits


class Softmax(Wrapper):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).softmax(1)


class Scaled(Wrapper):
    """Logits so large that the cross-entropy is flat in float32."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * 1e4


class Quantised(Wrapper):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images * 16).round() / 16)


class Constant(Wrapper):
    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits * 1e-6 + torch.tensor([5.0, 0.0, 0.0])


class Randomised(Wrapper):
    """Fresh noise on the image in every pass."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + 0.1 * torch.randn_like(images))


class Scramble(torch.autograd.Function):
    """The identity with an unrelated gradient."""

    @staticmethod
    def forward(ctx: object, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        mixed = gradients[0].flatten(1)[:, torch.randperm(144, generator=torch.Generator().manual_seed(0))]
        return mixed.view_as(gradients[0]) * 1e-3


class Obfuscated(Wrapper):
    """A layer with a made-up gradient."""

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = Scramble.apply(images)
        return super().forward(found)


class TrainMode(Wrapper):
    """BatchNorm of the image that stays in training mode."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.norm = nn.BatchNorm2d(1)

    def train(self, mode: bool = True) -> "TrainMode":
        super().train(mode)
        self.norm.training = True
        return self

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(0.45 + 0.1 * self.norm(images))


class BlackHole(Wrapper):
    """A graph whose gradient is NaN where a pixel is black."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + (images - images.detach()).sqrt().sum((1, 2, 3))[:, None]


class Wide(Wrapper):
    """One output more than there are classes."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return torch.cat([logits, logits.amin(1, keepdim=True) - 1], 1)


class Masked(Wrapper):
    """Gradients are almost zero far from grey; the logit of the first class is raised by a constant."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(0.5 + 0.02 * torch.tanh((images - 0.5) / 0.02)) + 20 * torch.eye(3)[0]


class TwoInputs(nn.Module):
    """An ensemble whose second member gets another image than the first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.members = nn.ModuleList([model, copy.deepcopy(model)])

    def other(self, images: Tensor) -> Tensor:
        return images.flip(-2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.members[0](images) + self.members[1](self.other(images))
        return logits


class OneInput(TwoInputs):
    """A sound ensemble: both members get the same image."""

    def other(self, images: Tensor) -> Tensor:
        return images


@dataclass(frozen=True, kw_only=True)
class OneTarget(Attack):
    """An attack that targets one wrong class only."""

    targets: int = 1

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        return images


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """One draw of uniform noise in place of an attack."""

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        draws = 2 * uniform(seeds, 9, tuple(images.shape[1:])) - 1
        return project(images + self.eps * draws, images, self.eps)

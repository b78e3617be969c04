"""Faults that have been published as robustness, each in its smallest form."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, project
from medrobust.core.seeds import uniform


class Behind(nn.Module):
    """A sound model behind a fault."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits


class Softmax(Behind):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).softmax(1)


class Scaled(Behind):
    """Logits so large that the cross-entropy is flat in float32."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * 1e4


class Quantised(Behind):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images * 16).round() / 16)


class Constant(Behind):
    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits * 1e-6 + torch.tensor([5.0, 0.0, 0.0])


class Randomised(Behind):
    """Fresh noise on the image in every pass."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + 0.1 * torch.randn_like(images))


class Scramble(torch.autograd.Function):
    """Passes images on; its gradient has nothing to do with them."""

    @staticmethod
    def forward(ctx: object, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        mixed = gradients[0].flatten(1)[:, torch.randperm(144, generator=torch.Generator().manual_seed(0))]
        return mixed.view_as(gradients[0]) * 1e-3


class Obfuscated(Behind):
    """A layer that is not differentiable and gives a made-up gradient."""

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = Scramble.apply(images)
        return super().forward(found)


class TrainMode(Behind):
    """BatchNorm of the image that eval mode does not reach."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.norm = nn.BatchNorm2d(1)

    def train(self, mode: bool = True) -> "TrainMode":
        super().train(mode)
        self.norm.training = True
        return self

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(0.45 + 0.1 * self.norm(images))


class BlackHole(Behind):
    """A graph that gives NaN where a pixel is black."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + (images - images.detach()).sqrt().sum((1, 2, 3))[:, None]


class Wide(Behind):
    """One output more than there are classes."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return torch.cat([logits, logits.amin(1, keepdim=True) - 1], 1)


class Masked(Behind):
    """Answers from a look-up of what the clean image shows; only near it does the gradient say anything."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(0.5 + 0.02 * torch.tanh((images - 0.5) / 0.02)) + 20 * torch.eye(3)[0]


class TwoInputs(nn.Module):
    """An ensemble whose second member sees another image than the first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.members = nn.ModuleList([model, copy.deepcopy(model)])

    def other(self, images: Tensor) -> Tensor:
        return images.flip(-2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.members[0](images) + self.members[1](self.other(images))
        return logits


class OneInput(TwoInputs):
    """As it should be."""

    def other(self, images: Tensor) -> Tensor:
        return images


@dataclass(frozen=True, kw_only=True)
class OneTarget(Attack):
    """Says that it aims at one wrong class only."""

    targets: int = 1

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        return images


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """One draw of uniform noise, sold as an attack."""

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        draws = 2 * uniform(seeds, 9, tuple(images.shape[1:])) - 1
        return project(images + self.eps * draws, images, self.eps)

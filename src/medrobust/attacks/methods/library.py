"""Attacks of the torchattacks library behind the house's contract.

What has to be worked around (torchattacks 3.5.1): it draws from, and reseeds, the global random state; CW stops
by the sum of the batch's losses and Square draws for the batch, so that a result depends on batch mates; CW
cannot move a pixel that is exactly 0 or 1 (its arctanh is infinite there); parameters keep gradients.
So each image is attacked by itself, under its own seed, in a fork of the random state. That is slow: these are
the second opinion beside our own attacks, and the way to methods that we do not have.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, focus, project
from medrobust.core.params.base import Positive
from medrobust.core.params.hyperparameters import Count, NotNegative, Part


@dataclass(frozen=True, kw_only=True)
class LibraryAttack(Attack):
    """One image at a time through an attack of torchattacks."""

    @abstractmethod
    def build(self, model: nn.Module) -> Any:
        """The torchattacks object."""

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        devices = [images.device] if images.device.type == "cuda" else []
        results = []
        for row, seed in enumerate(seeds.tolist()):
            own = torch.tensor([row], device=images.device)
            with torch.random.fork_rng(devices), torch.enable_grad():
                torch.manual_seed(seed)
                attack = self.build(focus(model, own))
                results.append(attack(images[own], labels[own]).detach())
        found = torch.cat(results)
        # A bound attack may leave the ball by rounding; an unbound one is judged by the base as it is.
        return project(found, images, self.eps, self.norm) if self.bound else found.clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class LibraryCW(LibraryAttack):
    """Carlini & Wagner 2017, L2, fixed c. Unbound: counts only where its image lies inside the suite's ball.

    Attributes:
        c: weight of the margin loss.
        kappa: confidence in logits.
        steps: of Adam.
        lr: of Adam, in arctanh space.
    """

    bound: ClassVar[bool] = False
    c: Positive = 1.0
    kappa: NotNegative = 0.0
    steps: Count = 50
    lr: Positive = 0.01

    def build(self, model: nn.Module) -> Any:
        """Torchattacks' CW."""
        import torchattacks

        return torchattacks.CW(model, c=self.c, kappa=self.kappa, steps=self.steps, lr=self.lr)

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        inner = images.clamp(5e-4, 1 - 5e-4)  # an eighth of a grey level off the ends, so that all can move
        found = super().perturb(model, inner, labels, seeds, start)
        return torch.where((found - inner).abs() < 1e-6, images, found)


@dataclass(frozen=True, kw_only=True)
class LibrarySquare(LibraryAttack):
    """torchattacks' Square attack (Andriushchenko et al. 2020) for Linf.

    Its L2 form fails on many image sizes (12, and all that are no square); `square_l2` is our own.

    Attributes:
        queries: score queries an image.
        p_init: share of the pixels that the first squares cover.
        rescale: shrink the squares over these queries, as over the paper's 10,000.
    """

    queries: Count = 1000
    p_init: Part = 0.8
    rescale: bool = True

    @property
    def cost(self) -> float:
        """A query takes a third of a gradient."""
        return self.queries / 3

    def build(self, model: nn.Module) -> Any:
        """Torchattacks' Square, seeded from the image's seed."""
        import torchattacks

        seed = int(torch.initial_seed() % 2**31)
        return torchattacks.Square(
            model, eps=self.eps, n_queries=self.queries, p_init=self.p_init, seed=seed,
            resc_schedule=self.rescale,
        )  # fmt: skip

"""Attacks by somebody who knows the detector. Each obeys the attack contract: ball, range, finiteness, seeds.

What an attack hands back is, image by image, the best of all iterates that fooled the model (least suspicious,
unless the attack says otherwise); where none did, its last iterate.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.attacks.base import Attack, Norm, ascent, margin, project
from medrobust.core.params.base import Positive
from medrobust.core.params.hyperparameters import Count, NotNegative
from medrobust.core.seeds import uniform
from medrobust.detection.base import Detector
from medrobust.detection.features import DeepFeatures, Features


@dataclass(frozen=True)
class Suspicion:
    """A fitted detector as the attacker sees it: its score in units of clean validation scores.

    Attributes:
        detector: fitted, on the model's device.
        middle, spread: mean and standard deviation of clean validation scores, so that one scale of weights
            serves every detector.
    """

    detector: Detector
    middle: float
    spread: float

    def __call__(self, model: nn.Module, images: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Logits n×K and standardised score n, both differentiable by the images."""
        features = self.detector.extractor(model, images, seeds)
        return features.logits, (self.detector.score(features) - self.middle) / self.spread


class _Best:
    """For each image the candidate of the lowest cost among those that were admitted."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.clone()
        self.cost = torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)

    def offer(self, images: Tensor, admitted: Tensor, cost: Tensor) -> None:
        better = admitted & (cost.detach().double() < self.cost)
        self.images[better], self.cost[better] = images.detach()[better], cost.detach().double()[better]

    @property
    def found(self) -> Tensor:
        """Which images have a candidate, bool n."""
        return torch.isfinite(self.cost)

    def or_else(self, images: Tensor) -> Tensor:
        """The best of each image, or the given image where none was admitted."""
        return torch.where(self.found.view(-1, 1, 1, 1), self.images, images)


@dataclass(frozen=True, kw_only=True)
class AdaptiveAttack(Attack):
    """Steps of steepest ascent inside the ball of the suite's norm.

    Attributes:
        steps: gradient evaluations.
        alpha: step size; None = 2.5·eps/steps.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    steps: Count = 20
    alpha: Positive | None = None

    def walk(
        self, images: Tensor, start: Tensor, look: Callable[[Tensor], Tensor], eps: float | None = None
    ) -> Tensor:
        """Go from `start` along what `look` gives for each iterate; return the last.

        Args:
            images: centre of the ball.
            start: inside the ball.
            look: iterate (a leaf that wants a gradient) -> direction, n×C×H×W; sees the last iterate too.
            eps: another radius than the attack's.
        """
        eps = self.eps if eps is None else eps
        size = 2.5 * eps / self.steps if self.alpha is None else self.alpha
        current = start.detach()
        for _ in range(self.steps):
            with torch.enable_grad():
                direction = look(current.requires_grad_(True))
            current = project(current.detach() + size * ascent(direction, self.norm), images, eps, self.norm)
        with torch.enable_grad():
            look(current.requires_grad_(True))
        return current.detach()


@dataclass(frozen=True, kw_only=True)
class Joint(AdaptiveAttack):
    """Ascent of min(margin, confidence) - λ·score, λ searched image by image (Carlini & Wagner 2017b).

    "Adversarial examples are not easily detected", arXiv 1705.07263.

    Attributes:
        suspicion: the detector.
        searches: values of λ that are tried: bisection of log10 λ from `lowest` to `highest`, up where the model
            was fooled and down where it was not.
        confidence: margin, in logits, beyond which only the score counts.
    """

    suspicion: Suspicion = field(repr=False)
    searches: Count = 4
    lowest: float = -3.0
    highest: float = 3.0
    confidence: float = 0.5

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        best, last = _Best(start), start
        low = torch.full((len(images),), self.lowest, device=images.device)
        high = torch.full_like(low, self.highest)
        for _ in range(self.searches):
            middle, round_best = (low + high) / 2, _Best(start)
            last = self.walk(images, start, self._look(model, labels, seeds, 10**middle, round_best))
            best.offer(round_best.images, round_best.found, round_best.cost)
            low = torch.where(round_best.found, middle, low)
            high = torch.where(round_best.found, high, middle)
        return best.or_else(last)

    def _look(
        self, model: nn.Module, labels: Tensor, seeds: Tensor, weight: Tensor, best: _Best
    ) -> Callable[[Tensor], Tensor]:
        def look(current: Tensor) -> Tensor:
            logits, score = self.suspicion(model, current, seeds)
            goal = margin(logits, labels).clamp_max(self.confidence) - weight * score
            best.offer(current, logits.argmax(1) != labels, score)
            return torch.autograd.grad(goal.sum(), current)[0]

        return look


@dataclass(frozen=True, kw_only=True)
class Orthogonal(AdaptiveAttack):
    """Orthogonal projected gradients, in the selective form (Bryniarski et al. 2021, arXiv 2106.15023).

    While the model is right: up the margin. Once it is wrong: down the detector's score, less the part of that
    gradient along the margin's, so that hiding does not undo the fooling. The Linf step takes the sign of either.

    Attributes:
        suspicion: the detector.
    """

    suspicion: Suspicion = field(repr=False)

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        best = _Best(start)

        def look(current: Tensor) -> Tensor:
            logits, score = self.suspicion(model, current, seeds)
            (fooling,) = torch.autograd.grad(margin(logits, labels).sum(), current, retain_graph=True)
            (revealing,) = torch.autograd.grad(score.sum(), current)
            fooled = logits.argmax(1) != labels
            best.offer(current, fooled, score)
            return torch.where(fooled.view(-1, 1, 1, 1), -without(revealing, fooling), fooling)

        return best.or_else(self.walk(images, start, look))


def without(vector: Tensor, other: Tensor) -> Tensor:
    """`vector` less its projection on `other`, image by image."""
    flat, along = vector.flatten(1), other.flatten(1)
    share = (flat * along).sum(1) / along.pow(2).sum(1).clamp_min(1e-30)
    return (flat - share[:, None] * along).view_as(vector)


@dataclass(frozen=True, kw_only=True)
class Matching(AdaptiveAttack):
    """Give the features of a clean image of another class (Sabour et al. 2016, arXiv 1511.05122).

    It needs no detector. Each image takes as guide the nearest in feature space of the clean training images that
    the model puts into another class; the best iterate is the one nearest to its guide.

    Attributes:
        guides: features of clean training images, on the model's device.
    """

    guides: Features = field(repr=False)

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        extract = DeepFeatures()
        with torch.no_grad():
            distances = torch.cdist(extract(model, images, seeds).penultimate, self.guides.penultimate)
        distances[labels[:, None] == self.guides.preds[None, :]] = torch.inf
        goals, best = self.guides.penultimate[distances.argmin(1)], _Best(start)

        def look(current: Tensor) -> Tensor:
            features = extract(model, current, seeds)
            gap = (features.penultimate - goals).pow(2).sum(1)
            best.offer(current, features.preds != labels, gap)
            return -torch.autograd.grad(gap.sum(), current)[0]

        return best.or_else(self.walk(images, start, look))


@dataclass(frozen=True, kw_only=True)
class InDistribution(AdaptiveAttack):
    """The `ind` variant, by our definition: the highest loss while the features stay as likely as clean ones.

    Steps ascend the margin while the density score is at most `limit`, and descend the score while it is not.
    Where no iterate fools the model inside the limit, the clean image is handed back.

    Attributes:
        suspicion: a density of clean features.
        limit: standardised score that a chosen share of clean validation images exceeds.
    """

    suspicion: Suspicion = field(repr=False)
    limit: float

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        best = _Best(start)

        def look(current: Tensor) -> Tensor:
            logits, score = self.suspicion(model, current, seeds)
            inside, gap = score <= self.limit, margin(logits, labels)
            best.offer(current, inside & (gap > 0), -gap)
            return torch.autograd.grad(torch.where(inside, gap.double(), -score).sum(), current)[0]

        self.walk(images, start, look)
        return best.or_else(images)


@dataclass(frozen=True, kw_only=True)
class OffAnatomy(AdaptiveAttack):
    """The `ood` variant, by our definition: an image that is no anatomy and is put into a class with confidence.

    It starts from smooth random texture drawn from the image's seed, keeps within `radius` of it, so that it
    stays texture to the eye, and ascends the probability of the class that is likeliest at the start. The ball
    of the contract is the whole range (eps 1): the image that it is called with gives only shape and seed.

    Attributes:
        radius: Linf, around the texture.
        cells: side of the random field before it is smoothed up.
        confidence: probability at which an image is done; the first such iterate is handed back.
    """

    eps: NotNegative = 1.0
    radius: Positive = 0.1
    cells: Count = 8
    confidence: float = 0.9

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        field = uniform(seeds, 0, (images.shape[1], self.cells, self.cells)).to(images)
        texture = F.interpolate(field, size=images.shape[-2:], mode="bilinear").clamp(0, 1)
        with torch.no_grad():
            goal = model(texture).argmax(1)
        best = _Best(texture)

        def look(current: Tensor) -> Tensor:
            chances = model(current).log_softmax(1).gather(1, goal[:, None]).squeeze(1)
            done = (chances.exp() >= self.confidence) & ~best.found
            best.offer(current, done, -chances)
            return torch.autograd.grad(chances.sum(), current)[0]

        return best.or_else(self.walk(texture, texture, look, self.radius))

"""Attacks by an attacker who knows the detector. All obey the attack contract: ball, range, finiteness, seeds.

For each image, an attack returns the best of all iterates that fooled the model: the least suspicious one, unless
the attack's docstring says otherwise. Where no iterate fooled the model, it returns the last one. Detectors are
fitted, and they and `guides` are on the model's device.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.attacks.base import Attack, margin
from medrobust.attacks.problem import Problem
from medrobust.attacks.projection import Norm, ascent, per_image, project
from medrobust.attacks.targets import Costs, choose_targets
from medrobust.core.params.base import Count, NotNegative, Positive
from medrobust.core.seeds import uniform
from medrobust.detection.features import DeepFeatures, Features
from medrobust.detection.guard import FittedDetector

#: iterate (a leaf that needs a gradient) -> direction of the next step, both n×C×H×W
Direction = Callable[[Tensor], Tensor]


class _BestIterates:
    """Per image, the iterate with the lowest cost among those that were admitted."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.clone()
        self.cost = torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)

    def update(self, images: Tensor, admitted: Tensor, cost: Tensor) -> None:
        better = admitted & (cost.detach().double() < self.cost)
        self.images[better], self.cost[better] = images.detach()[better], cost.detach().double()[better]

    @property
    def exists(self) -> Tensor:
        return torch.isfinite(self.cost)

    def or_else(self, images: Tensor) -> Tensor:
        """The best iterate of each image, or the given image where none was admitted."""
        return torch.where(per_image(self.exists), self.images, images)


@dataclass(frozen=True, kw_only=True)
class AdaptiveAttack(Attack):
    """Steps of steepest ascent inside the ball of the suite's norm; the step size is 2.5·eps/steps."""

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    steps: Count = 20

    def ascend(self, images: Tensor, start: Tensor, direction: Direction, eps: float | None = None) -> Tensor:
        """Take `steps` steps from `start` in the ball around `images`; `direction` sees the last iterate too.

        `eps` replaces the attack's radius.
        """
        eps = self.eps if eps is None else eps
        size = 2.5 * eps / self.steps
        current = start.detach()
        for _ in range(self.steps):
            with torch.enable_grad():
                step = direction(current.requires_grad_(True))
            current = project(current.detach() + size * ascent(step, self.norm), images, eps, self.norm)
        with torch.enable_grad():
            direction(current.requires_grad_(True))
        return current.detach()


@dataclass(frozen=True, kw_only=True)
class Joint(AdaptiveAttack):
    """Ascent of min(margin, confidence) - λ·score (Carlini & Wagner 2017b, arXiv 1705.07263).

    `searches` values of λ are tried per image, by bisection of log10 λ between `lowest` and `highest`, up where
    the model was fooled and down where it was not. `confidence` is the margin in logits above which only the score
    counts. With `costs` (K×K, rows are true classes) the margin is that of the costliest class, and only images
    that are predicted as this class count.
    """

    detector: FittedDetector = field(repr=False)
    searches: Count = 4
    lowest: float = -3.0
    highest: float = 3.0
    confidence: float = 0.5
    costs: Costs = None

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        best, last = _BestIterates(start), start
        targets = choose_targets(model, images, labels, "most_costly", self.costs) if self.costs else None
        low = torch.full((len(images),), self.lowest, device=images.device)
        high = torch.full_like(low, self.highest)
        for _ in range(self.searches):
            middle, round_best = (low + high) / 2, _BestIterates(start)
            part = Problem(model, images, labels, seeds, self.eps, self.norm, targets)
            last = self.ascend(images, start, self._direction(part, 10**middle, round_best))
            best.update(round_best.images, round_best.exists, round_best.cost)
            low = torch.where(round_best.exists, middle, low)
            high = torch.where(round_best.exists, high, middle)
        return best.or_else(last)

    def _direction(self, problem: Problem, weight: Tensor, best: _BestIterates) -> Direction:
        def direction(current: Tensor) -> Tensor:
            logits, score = self.detector.logits_and_score(problem.model, current, problem.seeds)
            objective = problem.margins(logits).clamp_max(self.confidence) - weight * score
            best.update(current, problem.reached(logits), score)
            return torch.autograd.grad(objective.sum(), current)[0]

        return direction


@dataclass(frozen=True, kw_only=True)
class Orthogonal(AdaptiveAttack):
    """Orthogonal projected gradients, selective form (Bryniarski et al. 2021, arXiv 2106.15023).

    While the prediction is right, steps ascend the margin. Once it is wrong, they descend the detector's score
    along the part of its gradient that is orthogonal to the margin's, so that evading the detector does not undo
    the misclassification. Linf steps take the sign of either gradient.
    """

    detector: FittedDetector = field(repr=False)

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        best = _BestIterates(start)

        def direction(current: Tensor) -> Tensor:
            logits, score = self.detector.logits_and_score(model, current, seeds)
            (of_margin,) = torch.autograd.grad(margin(logits, labels).sum(), current, retain_graph=True)
            (of_score,) = torch.autograd.grad(score.sum(), current)
            fooled = logits.argmax(1) != labels
            best.update(current, fooled, score)
            return torch.where(per_image(fooled), -orthogonal_part(of_score, of_margin), of_margin)

        return best.or_else(self.ascend(images, start, direction))


def orthogonal_part(vectors: Tensor, others: Tensor) -> Tensor:
    """`vectors` minus their projection on `others`, per image."""
    flat, along = vectors.flatten(1), others.flatten(1)
    share = (flat * along).sum(1) / along.pow(2).sum(1).clamp_min(1e-30)
    return (flat - share[:, None] * along).view_as(vectors)


@dataclass(frozen=True, kw_only=True)
class Matching(AdaptiveAttack):
    """Match the features of a clean image of another class (Sabour et al. 2016, arXiv 1511.05122).

    It needs no detector. The guide of an image is the nearest, in feature space, of the clean training images that
    the model puts into another class. The best iterate is the one nearest to its guide.
    """

    guides: Features = field(repr=False)

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        extract = DeepFeatures()
        with torch.no_grad():
            distances = torch.cdist(extract(model, images, seeds).penultimate, self.guides.penultimate)
        distances[labels[:, None] == self.guides.preds[None, :]] = torch.inf
        targets, best = self.guides.penultimate[distances.argmin(1)], _BestIterates(start)

        def direction(current: Tensor) -> Tensor:
            features = extract(model, current, seeds)
            distance = (features.penultimate - targets).pow(2).sum(1)
            best.update(current, features.preds != labels, distance)
            return -torch.autograd.grad(distance.sum(), current)[0]

        return best.or_else(self.ascend(images, start, direction))


@dataclass(frozen=True, kw_only=True)
class InDistribution(AdaptiveAttack):
    """The `ind` variant, in our definition: the highest loss at which the features stay as likely as clean ones.

    Steps ascend the margin while the score of `detector`, a density, is at most `limit`, and descend the score
    while it is above. Where no iterate fools the model within the limit, the clean image is returned. `limit` is
    the standardised score that a chosen share of clean validation images exceeds.
    """

    detector: FittedDetector = field(repr=False)
    limit: float

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        best = _BestIterates(start)

        def direction(current: Tensor) -> Tensor:
            logits, score = self.detector.logits_and_score(model, current, seeds)
            inside, gap = score <= self.limit, margin(logits, labels)
            best.update(current, inside & (gap > 0), -gap)
            return torch.autograd.grad(torch.where(inside, gap.double(), -score).sum(), current)[0]

        self.ascend(images, start, direction)
        return best.or_else(images)


@dataclass(frozen=True, kw_only=True)
class OffAnatomy(AdaptiveAttack):
    """The `ood` variant, in our definition: an image without anatomy that is put into a class with confidence.

    It starts from smooth random texture (a field of `cells`×`cells`, interpolated) drawn from the image's seed. It
    stays within `radius` of it in Linf, so that it still looks like texture, and ascends the probability of the
    class that is most likely at the start. The first iterate with probability `confidence` is returned. The ball
    of the contract is the whole range (eps 1): of the image it is called with, only the shape and the seed are
    used.
    """

    eps: NotNegative = 1.0
    radius: Positive = 0.1
    cells: Count = 8
    confidence: float = 0.9

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        coarse = uniform(seeds, 0, (images.shape[1], self.cells, self.cells)).to(images)
        texture = F.interpolate(coarse, size=images.shape[-2:], mode="bilinear").clamp(0, 1)
        with torch.no_grad():
            target = model(texture).argmax(1)
        best = _BestIterates(texture)

        def direction(current: Tensor) -> Tensor:
            logprobs = model(current).log_softmax(1).gather(1, target[:, None]).squeeze(1)
            done = (logprobs.exp() >= self.confidence) & ~best.exists
            best.update(current, done, -logprobs)
            return torch.autograd.grad(logprobs.sum(), current)[0]

        return best.or_else(self.ascend(texture, texture, direction, self.radius))

"""Attacks by an attacker who knows the detector. All obey the attack contract: ball, range, finiteness, seeds.

They are gradient steps as those of `IteratedGradient`; each attack defines the direction of a step and by which
score the best of all iterates is chosen. For each image, that is the least suspicious one that fooled the model,
unless the attack's docstring says otherwise. Where no iterate fooled the model, it is the last one. Detectors are
fitted, and they and `guides` are on the model's device.
"""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from medrobust.attacks.base import margin
from medrobust.attacks.methods.iterative import IteratedGradient
from medrobust.attacks.problem import BestImages, Problem
from medrobust.attacks.projection import Norm, per_image
from medrobust.attacks.state import AttackState
from medrobust.core.params.base import Count, NotNegative, Positive
from medrobust.core.seeds import uniform
from medrobust.detection.features import DeepFeatures, Features
from medrobust.detection.guard import FittedDetector


@dataclass(frozen=True, kw_only=True)
class AdaptiveAttack(IteratedGradient):
    """Steps of steepest ascent inside the ball of the suite's norm, all of them on every image."""

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    steps: Count = 20
    random_start: bool = False
    stop_when_fooled: bool = False

    @abstractmethod
    def look(self, state: AttackState, current: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits n×K, directions of the next step and scores (n, see `BestImages`) of iterates.

        `current`, n×C×H×W, is a leaf that needs a gradient. -inf is the score of an iterate that only counts as
        the last one.
        """

    def evaluate(self, state: AttackState, *, last: bool = False) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            return tuple(part.detach() for part in self.look(state, state.current.detach().requires_grad_(True)))

    def scores(self, state: AttackState, logits: Tensor, found: tuple[Tensor, ...]) -> Tensor:
        return found[1]


@dataclass(frozen=True, kw_only=True)
class Joint(AdaptiveAttack):
    """Ascent of min(margin, confidence) - λ·score (Carlini & Wagner 2017b, arXiv 1705.07263).

    `searches` values of λ are tried per image, by bisection of log10 λ between `lowest` and `highest`, up where
    the model was fooled and down where it was not. `confidence` is the margin in logits above which only the score
    counts. With a target, only images that are predicted as their target count.
    """

    detector: FittedDetector = field(repr=False)
    searches: Count = 4
    lowest: float = -3.0
    highest: float = 3.0
    confidence: float = 0.5

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        best = BestImages(start)
        low, high = (problem.images.new_full((len(start),), end) for end in (self.lowest, self.highest))
        for _ in range(self.searches):
            middle = (low + high) / 2
            ended = state = self.start(problem, 0, start, torch.ones_like(low, dtype=torch.bool))
            state.memory["weight"] = 10**middle
            while len(state.images):
                ended, state = self.advance(state)
            best.update(ended.best, ended.score)
            fooled = torch.isfinite(ended.score)
            low, high = torch.where(fooled, middle, low), torch.where(fooled, high, middle)
        return best.images

    def look(self, state: AttackState, current: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, score = self.detector.logits_and_score(state.model, current, state.seeds)
        objective = state.margins(logits).clamp_max(self.confidence) - state.memory["weight"] * score
        (direction,) = torch.autograd.grad(objective.sum(), current)
        return logits, direction, torch.where(state.reached(logits), -score, -torch.inf)


@dataclass(frozen=True, kw_only=True)
class Orthogonal(AdaptiveAttack):
    """Orthogonal projected gradients, selective form (Bryniarski et al. 2021, arXiv 2106.15023).

    While the prediction is right, steps ascend the margin. Once it is wrong, they descend the detector's score
    along the part of its gradient that is orthogonal to the margin's, so that evading the detector does not undo
    the misclassification. Linf steps take the sign of either gradient.
    """

    detector: FittedDetector = field(repr=False)

    def look(self, state: AttackState, current: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, score = self.detector.logits_and_score(state.model, current, state.seeds)
        (of_margin,) = torch.autograd.grad(state.margins(logits).sum(), current, retain_graph=True)
        (of_score,) = torch.autograd.grad(score.sum(), current)
        fooled = state.reached(logits)
        direction = torch.where(per_image(fooled), -orthogonal_part(of_score, of_margin), of_margin)
        return logits, direction, torch.where(fooled, -score, -torch.inf)


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

    def begin(self, state: AttackState, warm: Tensor) -> None:
        super().begin(state, warm)
        with torch.no_grad():
            features = DeepFeatures()(state.model, state.images, state.seeds)
        distances = torch.cdist(features.penultimate, self.guides.penultimate)
        distances[state.labels[:, None] == self.guides.preds[None, :]] = torch.inf
        state.memory["guides"] = self.guides.penultimate[distances.argmin(1)]

    def look(self, state: AttackState, current: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = DeepFeatures()(state.model, current, state.seeds)
        distance = (features.penultimate - state.memory["guides"]).pow(2).sum(1)
        (slope,) = torch.autograd.grad(distance.sum(), current)
        return features.logits, -slope, torch.where(state.reached(features.logits), -distance, -torch.inf)


@dataclass(frozen=True, kw_only=True)
class InDistribution(AdaptiveAttack):
    """The `ind` variant, in our definition: the highest loss at which the features stay as likely as clean ones.

    Steps ascend the margin while the score of `detector`, a density, is at most `limit`, and descend the score
    while it is above. Where no iterate fools the model within the limit, the clean image is returned. `limit` is
    the standardised score that a chosen share of clean validation images exceeds.
    """

    detector: FittedDetector = field(repr=False)
    limit: float

    def look(self, state: AttackState, current: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, score = self.detector.logits_and_score(state.model, current, state.seeds)
        inside, gap = score <= self.limit, margin(logits, state.labels)
        (direction,) = torch.autograd.grad(torch.where(inside, gap.double(), -score).sum(), current)
        return logits, direction, torch.where(inside & (gap > 0), gap, torch.nan)  # not even the last one counts


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

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        coarse = uniform(problem.seeds, 0, (start.shape[1], self.cells, self.cells)).to(start)
        texture = F.interpolate(coarse, size=start.shape[-2:], mode="bilinear").clamp(0, 1)
        around = replace(problem, images=texture, eps=self.radius)
        around.targets = around.logits(texture).argmax(1)
        return super().search(around, texture)

    def look(self, state: AttackState, current: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = state.model(current)
        assert state.targets is not None
        logprobs = logits.log_softmax(1).gather(1, state.targets[:, None]).squeeze(1)
        (direction,) = torch.autograd.grad(logprobs.sum(), current)
        first = torch.where(logprobs.exp() >= self.confidence, -state.steps.to(logprobs), -torch.inf)
        return logits, direction, first

"""HopSkipJump: an attack that sees only the predicted class (Chen, Jordan & Wainwright 2020)."""

import math
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from medrobust.attacks.problem import BestImages, Problem, TargetableAttack
from medrobust.attacks.projection import ascent, distance, per_image, project
from medrobust.core.errors import UserError
from medrobust.core.params.base import Count
from medrobust.core.params.hyperparameters import Part
from medrobust.core.seeds import uniform

if TYPE_CHECKING:
    from medrobust.data.store import Subset

#: Random streams of one iteration, more than it has probes.
STREAMS = 1 << 20
#: Halvings of a step that does not fool the model, at most.
STEP_HALVINGS = 8
#: Fewest probes that a step is based on.
FEWEST_PROBES = 10


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(TargetableAttack):
    """The smallest change by predictions alone (Chen, Jordan & Wainwright 2020, algorithm 2), in Linf or L2.

    From an image that fools the model, each iteration estimates the normal of the decision boundary from the
    predictions at random probes, steps along it, and bisects the way back to the clean image. Iteration t has
    probes·√t probes. Their distance is the share `reach` of the distance from the clean image, and
    the bisection ends at a width of reach/√d of it in d dimensions, so that the probes lie on both sides.
    (The paper has 1/d in place of `reach`, which float32 does not resolve.)

    `begin` is where it starts: at `noise`, the first of `tries` random images that fools the model; or at an
    `image`, the first of `tries` training images that does, such as one of the target class. Where none does, the
    image stays clean. Noise has blocks of growing size, up to the whole image, because models often give one class
    to all noise of single pixels.

    The radius of the suite is not used, so one run serves every radius, unless `minimise: false` stops an image as
    soon as it is inside the ball. `queries` is the largest number of predictions per image.
    """

    respects_ball: ClassVar[bool] = False
    queries: Count = 1000
    probes: Annotated[int, Field(ge=FEWEST_PROBES)] = 100
    reach: Part = 0.01
    begin: Literal["noise", "image"] = "noise"
    tries: Count = 50
    minimise: bool = True
    train: "Subset | None" = field(default=None, repr=False, compare=False)

    @property
    def cost(self) -> float:
        return self.queries / 3

    def with_training(self, train: "Subset") -> Self:
        return replace(self, train=train) if self.begin == "image" else self

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        best = BestImages(problem.images)  # the score is minus the distance
        left = torch.full_like(problem.labels, self.queries)
        found = self._find_start(problem, start, best, left)
        halvings = math.ceil(math.log2(problem.images[0].numel() ** 0.5 / self.reach))
        rows = torch.nonzero(found & (left >= halvings) & (best.scores < 0)).squeeze(1)
        part, left = problem.take(rows), left[rows] - halvings
        current = self._bisect(part, best.images[rows], halvings)
        for iteration in count(1):
            best.update(current, -distance(current, part.images, self.norm), rows)
            probes = (left - STEP_HALVINGS - halvings).clamp_max(round(self.probes * iteration**0.5))
            on = (probes >= FEWEST_PROBES) & ((-best.scores[rows] > self.eps) | self.minimise)
            if not on.any():
                return best.images
            rows, part, current, left, probes = rows[on], part.take(on), current[on], left[on], probes[on]
            direction = ascent(self._normal(part, current, probes, iteration), self.norm)
            current, spent = self._walk(part, current, direction, iteration)
            current = self._bisect(part, current, halvings)
            left = left - probes - spent - halvings
        raise AssertionError("each iteration spends queries")

    def _find_start(self, problem: Problem, start: Tensor, best: BestImages, left: Tensor) -> Tensor:
        """Offer the first image that fools, `start` or a drawn one, to `best`; return which have one, bool n."""
        found = torch.zeros_like(problem.labels, dtype=torch.bool)
        for number in range(self.tries + 1):
            rows = torch.nonzero(~found & (left > 0)).squeeze(1)
            if not len(rows):
                break
            part = problem.take(rows)
            images = part.apply_mask(self._draw(part, number) if number else start[rows])
            found[rows] = part.reached(part.logits(images))
            left[rows] -= 1
            score = torch.where(found[rows], -distance(images, part.images, self.norm), torch.nan)
            best.update(images, score, rows)
        return found

    def _draw(self, part: Problem, number: int) -> Tensor:
        """Random images to start from: noise in blocks, or training images."""
        channels, height, width = part.images.shape[1:]
        if self.begin == "noise":
            side = 2 ** ((number - 1) % (math.ceil(math.log2(max(height, width))) + 1))
            noise = uniform(part.seeds, number, (channels, -(-height // side), -(-width // side)))
            noise = noise.repeat_interleave(side, 2)[:, :, :height].repeat_interleave(side, 3)[..., :width]
            return noise.to(part.images)
        if self.train is None:
            raise UserError("attack.begin", "no training images", "Call with_training(subset) first, or use noise")
        drawn = (uniform(part.seeds, number, ()) * len(self.train)).long().cpu()
        return self.train.batch(drawn.numpy()).to(part.images)

    def _bisect(self, part: Problem, images: Tensor, halvings: int) -> Tensor:
        """Move images that fool towards the clean ones, up to the boundary."""
        length = distance(images, part.images, self.norm)
        low, high = torch.zeros_like(length), length
        for _ in range(halvings):
            middle = (low + high) / 2
            nearer = project(images, part.images, per_image(middle), self.norm)
            fools = part.reached(part.logits(nearer))
            low, high = torch.where(fools, low, middle), torch.where(fools, middle, high)
            images = torch.where(per_image(fools), nearer, images)
        return images

    def _normal(self, part: Problem, current: Tensor, probes: Tensor, iteration: int) -> Tensor:
        """The estimated normal of the boundary, towards images that fool (equation 16 of the paper)."""
        size = per_image(self.reach * distance(current, part.images, self.norm)).clamp_min(1e-12)
        signed, plain = torch.zeros_like(current), torch.zeros_like(current)
        balance = torch.zeros_like(size)
        for number in range(int(probes.max())):
            rows = torch.nonzero(probes > number).squeeze(1)
            some = part.take(rows)
            away = size[rows] * some.direction(iteration * STREAMS + number)
            images = some.apply_mask((current[rows] + away).clamp(0, 1))
            sign = per_image(2 * some.reached(some.logits(images)).to(current) - 1)
            away = (images - current[rows]) / size[rows]
            signed[rows] += sign * away
            plain[rows] += away
            balance[rows] += sign
        mean = balance / per_image(probes)
        return signed - torch.where(mean.abs() == 1, 0, mean) * plain

    def _walk(self, part: Problem, current: Tensor, direction: Tensor, iteration: int) -> tuple[Tensor, Tensor]:
        """Step along a direction, halved until the image still fools; return the images and the queries, n."""
        size = distance(current, part.images, self.norm) / iteration**0.5
        spent, on = torch.zeros_like(part.labels), torch.ones_like(part.labels, dtype=torch.bool)
        current = current.clone()
        for _ in range(STEP_HALVINGS):
            rows = torch.nonzero(on).squeeze(1)
            if not len(rows):
                break
            some = part.take(rows)
            ahead = some.apply_mask((current[rows] + per_image(size[rows]) * direction[rows]).clamp(0, 1))
            fools = some.reached(some.logits(ahead))
            current[rows[fools]] = ahead[fools]
            spent[rows] += 1
            size[rows], on[rows] = size[rows] / 2, ~fools
        return current, spent

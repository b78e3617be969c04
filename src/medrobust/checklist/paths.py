"""Short paths of an attack, along which gradients must explain how the margin changes.

By the fundamental theorem of calculus, the gradients along a path add up to the change of the margin. A gradient
that is exact at a point and useless at the scale of an attack's steps (a fine ripple, a jump that it does not see)
breaks this sum, or changes its direction at every step.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.attacks.base import frozen, margin
from medrobust.attacks.projection import Norm, ascent, project
from medrobust.attacks.state import loss_gradient
from medrobust.checklist.base import ImageSample, Paths
from medrobust.core.seeds import signs
from medrobust.models.predict import batches

#: Steps of a path, each 1 / STEPS of the radius: as long as those of PGD with ten steps.
STEPS = 4
BATCH = 64
#: Stream of the random corner, which no challenger uses.
STREAM = 1 << 20


def follow_gradients(model: nn.Module, sample: ImageSample, eps: float, norm: Norm) -> Paths:
    """Take steps of eps / STEPS along the gradient of the margin, in float32 on the model itself."""
    with frozen(model):
        parts = [_follow(model, sample.select(rows), eps, norm) for rows in batches(len(sample), BATCH // 2)]
    return Paths(sample.rows, *(torch.cat(values).cpu().numpy() for values in zip(*parts, strict=True)))


def _follow(model: nn.Module, sample: ImageSample, eps: float, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    corner = signs(sample.seeds, STREAM, tuple(sample.images.shape[1:])).to(sample.images)
    length = eps if norm == "Linf" else eps * sample.images[0].numel() ** -0.5
    clean, labels = torch.cat([sample.images, sample.images]), sample.labels.repeat(2)
    start = project(torch.cat([sample.images, sample.images + length / 2 * corner]), clean, eps, norm)
    first, gradient = _margins(model, start, labels)
    errors = _errors(start, first, gradient)
    current, expected, cosines = start, torch.zeros_like(first), torch.zeros_like(first)
    origin = gradient
    for _ in range(STEPS):
        ahead = project(current + eps / STEPS * ascent(gradient, norm), clean, eps, norm)
        margins, following = _margins(model, ahead, labels)
        expected += _product((gradient.double() + following.double()) / 2, ahead - current)
        cosines += _cosine(gradient, following) / STEPS
        current, gradient = ahead, following
    cosines = torch.minimum(cosines, _cosine(origin, gradient))
    return ((margins - first) / expected).view(2, -1).T, cosines.view(2, -1).T, errors


def _margins(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    logits, gradient = loss_gradient(model, images, labels, "margin")
    return margin(logits.double(), labels), gradient


def _errors(start: Tensor, margins: Tensor, gradient: Tensor) -> Tensor:
    """Errors of `Paths` from the first points of both paths."""
    clean, corner = start.chunk(2)
    before, after = gradient.double().chunk(2)
    mean = (before + after) / 2
    change = margins.chunk(2)[1] - margins.chunk(2)[0]
    lengths = [part.flatten(1).norm(dim=1) for part in (mean, (corner - clean).double())]
    typical = lengths[0] * lengths[1] / clean[0].numel() ** 0.5
    return (change - _product(mean, corner - clean)).abs() / typical


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return F.cosine_similarity(one.double().flatten(1), other.double().flatten(1), dim=1, eps=1e-300)


def _product(gradient: Tensor, step: Tensor) -> Tensor:
    return (gradient * step.double()).flatten(1).sum(1)

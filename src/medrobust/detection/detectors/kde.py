"""Kernel density of the predicted class (Feinman et al. 2017, section 4.1; on medical images Ma et al. 2020)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from medrobust.core.params.base import Positive
from medrobust.detection.base import Detector
from medrobust.detection.features import Features
from medrobust.detection.statistics.distances import log_kernel_sums, nearest
from medrobust.detection.statistics.standardise import check_class_sizes, moments, standardise

#: Candidate bandwidths, as multiples of the median distance to the nearest neighbour.
FACTORS = tuple(2.0 ** (power / 2) for power in range(-6, 5))
#: At most this many images of each class are used to select the bandwidth.
MOST_IMAGES = 1000


@dataclass(kw_only=True)
class KernelDensity(Detector):
    """Negative log of the Gaussian kernel density of the predicted class's training features.

    `bandwidth` is in standard deviations of a feature; None = the one of `FACTORS` with the highest leave-one-out
    likelihood of the training images, summed over classes (attacked images are not used).
    """

    bandwidth: Positive | None = None

    def learn(self, features: Features, labels: Tensor, attacked: Features | None, seed: int) -> dict[str, Tensor]:
        check_class_sizes(labels, features.logits.shape[1], 2, "kde")
        scale = moments(features.penultimate, "kde")
        points = standardise(features.penultimate, scale)
        order = labels.argsort(stable=True)
        width = _most_likely_bandwidth(points, labels) if self.bandwidth is None else self.bandwidth
        counts = torch.bincount(labels, minlength=features.logits.shape[1])
        return {**scale, "points": points[order], "counts": counts, "bandwidth": points.new_tensor(width)}

    def suspicion(self, features: Features) -> Tensor:
        points = standardise(features.penultimate, self.state)
        groups = self.state["points"].split(self.state["counts"].tolist())
        preds, width = features.preds, self.state["bandwidth"]
        result = points.new_zeros(len(points))
        for k in preds.unique().tolist():
            rows = torch.nonzero(preds == k).flatten()
            sums = log_kernel_sums(points[rows], groups[k], width[None]).squeeze(1)
            result = result.index_add(0, rows, _constant(len(groups[k]), points.shape[1], width) - sums)
        return result


def _constant(count: int, dimensions: int, width: Tensor) -> Tensor:
    """Log of count · (2πh²)^(D/2), the normalisation of the kernel sum."""
    return math.log(count) + dimensions / 2 * torch.log(2 * math.pi * width**2)


def _most_likely_bandwidth(points: Tensor, labels: Tensor) -> float:
    groups = [points[labels == k] for k in labels.unique().tolist()]
    groups = [group[:: -(-len(group) // MOST_IMAGES)] for group in groups]
    gaps = torch.cat([nearest(group, group, 1).squeeze(1) for group in groups])
    gaps = gaps[torch.isfinite(gaps)].sqrt()
    base = float(gaps.median()) if len(gaps) else 1.0
    widths = points.new_tensor([factor * base for factor in FACTORS])
    totals = points.new_zeros(len(widths))
    for group in groups:
        sums = log_kernel_sums(group, group, widths)
        constants = torch.stack([_constant(max(len(group) - 1, 1), points.shape[1], h) for h in widths])
        totals += (sums - constants)[torch.isfinite(sums).all(1)].sum(0)
    return float(widths[totals.argmax()])

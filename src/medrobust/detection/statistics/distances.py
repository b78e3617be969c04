"""Distances to many reference points, computed in blocks to bound the memory, and differentiable."""

from collections.abc import Iterator

import torch
from torch import Tensor

#: Points on either side of one block of distances (1024² float64 = 8 MB).
BLOCK = 1024
#: Two points count as the same if their squared distance is at most this share of their squared norms.
SAME = 1e-10


def square_distances(points: Tensor, references: Tensor) -> Iterator[Tensor]:
    """Squared Euclidean distances of n points to m references, in blocks n×b along the references.

    The distance of a point to its own copy is infinite: neither a density nor a neighbourhood may be estimated
    from the point itself. Points are float64 n×D with n at most `BLOCK`, references float64 m×D.
    """
    norms = points.pow(2).sum(1)[:, None]
    for part in references.split(BLOCK):
        total = norms + part.pow(2).sum(1)[None, :]
        squared = total - 2 * points @ part.T
        yield torch.where(squared <= SAME * total, torch.inf, squared)


def nearest(points: Tensor, references: Tensor, k: int) -> Tensor:
    """Squared distances of n points to their k nearest of m references (float64), ascending, n×k; k at most m.

    Copies of a point do not count as its neighbours.
    """
    results = []
    for rows in points.split(BLOCK):
        best = rows.new_full((len(rows), k), torch.inf)
        for block in square_distances(rows, references):
            best = torch.cat([best, block], 1).topk(k, 1, largest=False).values
        results.append(best)
    return torch.cat(results)


def log_kernel_sums(points: Tensor, references: Tensor, bandwidths: Tensor) -> Tensor:
    """Log Σ_j exp(-‖x - r_j‖²/2h²) for n points and b bandwidths, n×b; copies of a point are left out."""
    results = []
    for rows in points.split(BLOCK):
        sums = rows.new_full((len(rows), len(bandwidths)), -torch.inf)
        for block in square_distances(rows, references):
            parts = [torch.logsumexp(-block / (2 * h**2), 1) for h in bandwidths]
            sums = torch.logaddexp(sums, torch.stack(parts, 1))
        results.append(sums)
    return torch.cat(results)

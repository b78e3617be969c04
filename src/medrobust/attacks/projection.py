"""The ball of an attack, Linf or L2: projection onto it, distances in it, and the steepest direction."""

from typing import Literal

import torch
from torch import Tensor

Norm = Literal["Linf", "L2"]


def project(images: Tensor, centre: Tensor, eps: float | Tensor, norm: Norm = "Linf") -> Tensor:
    """Images n×C×H×W projected into the ball around `centre`, then clipped to [0, 1], which stays inside the ball.

    `eps` is the radius, or one per image (n×1×1×1).
    """
    if norm == "Linf":
        return torch.minimum(torch.maximum(images, centre - eps), centre + eps).clamp(0, 1)
    shift = images - centre
    return (centre + shift * (eps / per_image(shift.flatten(1).norm(dim=1)).clamp_min(eps))).clamp(0, 1)


def distance(images: Tensor, centre: Tensor, norm: Norm = "Linf") -> Tensor:
    """Distance of each image from its centre, n."""
    lengths: Tensor = torch.linalg.vector_norm(
        (images - centre).flatten(1), torch.inf if norm == "Linf" else 2, dim=1
    )
    return lengths


def ascent(gradient: Tensor, norm: Norm = "Linf") -> Tensor:
    """Direction of steepest ascent, of length 1 in the norm: the sign, or the unit vector. Zero stays zero."""
    if norm == "Linf":
        return gradient.sign()
    # Scale first, so that the squares of a tiny gradient do not underflow.
    scaled = gradient / per_image(gradient.flatten(1).abs().amax(1)).clamp_min(1e-38)
    return scaled / per_image(scaled.flatten(1).norm(dim=1)).clamp_min(1e-12)


def per_image(values: Tensor) -> Tensor:
    """Reshape n values to n×1×1×1, so that they broadcast over images."""
    return values.view(-1, 1, 1, 1)

"""The bound of an attack, a ball or a patch: projection, distances, and the steepest direction."""

from typing import Literal

import torch
from torch import Tensor

#: The ball in which an attack stays; or `patch`: one square with any content, whose radius is its share of pixels.
Norm = Literal["Linf", "L2", "patch"]


def project(images: Tensor, centre: Tensor, eps: float | Tensor, norm: Norm = "Linf") -> Tensor:
    """Images n×C×H×W projected into the ball around `centre`, then clipped to [0, 1], which stays inside the ball.

    `eps` is the radius, or one per image (n×1×1×1). A patch is only clipped: its mask keeps it inside its square.
    """
    if norm == "patch":
        return images.clamp(0, 1)
    if norm == "Linf":
        return torch.minimum(torch.maximum(images, centre - eps), centre + eps).clamp(0, 1)
    shift = images - centre
    return (centre + shift * (eps / per_image(shift.flatten(1).norm(dim=1)).clamp_min(eps))).clamp(0, 1)


def distance(images: Tensor, centre: Tensor, norm: Norm = "Linf") -> Tensor:
    """Distance of each image from its centre, n.

    For `patch`, it is the share of the pixels in the smallest square that holds all changed ones.
    """
    if norm == "patch":
        changed = (images != centre).any(1)
        sides = torch.stack([_extent(changed.any(axis)) for axis in (1, 2)]).amax(0)
        return (sides.square() / (changed.shape[1] * changed.shape[2])).to(images)
    lengths: Tensor = torch.linalg.vector_norm(
        (images - centre).flatten(1), torch.inf if norm == "Linf" else 2, dim=1
    )
    return lengths


def ascent(gradient: Tensor, norm: Norm = "Linf") -> Tensor:
    """Direction of steepest ascent: for L2 the unit vector, else the sign. Zero stays zero."""
    if norm != "L2":
        return gradient.sign()
    # Scale first, so that the squares of a tiny gradient do not underflow.
    scaled = gradient / per_image(gradient.flatten(1).abs().amax(1)).clamp_min(1e-38)
    return scaled / per_image(scaled.flatten(1).norm(dim=1)).clamp_min(1e-12)


def per_image(values: Tensor) -> Tensor:
    """Reshape n values to n×1×1×1, so that they broadcast over images."""
    return values.view(-1, 1, 1, 1)


def _extent(changed: Tensor) -> Tensor:
    """Length of the shortest interval that holds all true positions, int64 n; `changed` is bool n×positions."""
    positions = torch.arange(1, changed.shape[1] + 1, device=changed.device)
    last, first = (changed * positions).amax(1), (changed * positions.flip(0)).amax(1)
    return (last + first - len(positions)).clamp_min(0)

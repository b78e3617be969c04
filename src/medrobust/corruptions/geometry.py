"""Corruptions of position: rotation, translation."""

import torch
from torch import Tensor
from torch.nn import functional

from medrobust.core.seeds import uniform
from medrobust.corruptions.base import Corruption, SignedCorruption


def move(images: Tensor, degrees: Tensor, shifts: Tensor) -> Tensor:
    """Rotate images n×C×H×W about their centre and then translate them; uncovered pixels are black.

    `degrees`, n, turn counter-clockwise. `shifts`, n×2, are in pixels to the right and down. Bilinear.
    """
    height, width = images.shape[-2:]
    turn = torch.deg2rad(degrees)
    cosine, sine = turn.cos(), turn.sin()
    # The sampling grid needs the inverse: from the place in the result to that in the image.
    right, down = shifts.unbind(1)
    x = -(cosine * right - sine * down) * 2 / width
    y = -(sine * right + cosine * down) * 2 / height
    rows = torch.stack([cosine, -sine * height / width, x, sine * width / height, cosine, y], dim=1)
    grid = functional.affine_grid(rows.view(-1, 2, 3).to(images), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class Rotation(SignedCorruption):
    """The patient's position is turned in the plane of the image, either way."""

    strengths = (3.0, 6.0, 10.0, 15.0, 20.0)
    unit = "degrees"

    def apply(self, images: Tensor, *, amount: Tensor) -> Tensor:
        return move(images, amount, torch.zeros(len(images), 2, device=images.device))


class Translation(Corruption):
    """The patient is off centre, in any direction."""

    strengths = (0.02, 0.04, 0.06, 0.08, 0.12)
    unit = "share of the side"

    def draw(self, images: Tensor, strength: float, seeds: Tensor) -> dict[str, Tensor]:
        angle = 2 * torch.pi * uniform(seeds, 0, ())
        return {"shifts": strength * images.shape[-1] * torch.stack([angle.cos(), angle.sin()], dim=1)}

    def apply(self, images: Tensor, *, shifts: Tensor) -> Tensor:
        return move(images, torch.zeros(len(images), device=images.device), shifts)

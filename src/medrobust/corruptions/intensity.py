"""Corruptions of grey levels: bias field, gamma, exposure, window, illumination, intensity."""

import torch
from torch import Tensor

from medrobust.attacks.projection import per_image
from medrobust.core.seeds import signs, uniform
from medrobust.corruptions.base import Corruption, SignedCorruption

#: Exponents (down, right) of the polynomial of a bias field.
TERMS = [(i, j) for i in range(4) for j in range(4 - i)]


def _axis(size: int, like: Tensor) -> Tensor:
    """Positions of pixel centres along an axis; the centre of the image is 0, the outermost pixels are ±1."""
    positions = torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2
    return positions / ((size - 1) / 2)


class BiasField(Corruption):
    """Brightness that varies smoothly over the image, as that of MRI coils: exp of a polynomial of degree 3."""

    strengths = (0.1, 0.2, 0.3, 0.4, 0.5)
    unit = "largest coefficient of the polynomial"

    def draw(self, images: Tensor, strength: float, seeds: Tensor) -> dict[str, Tensor]:
        return {"coefficients": strength * (2 * uniform(seeds, 0, (len(TERMS),)) - 1)}

    def apply(self, images: Tensor, *, coefficients: Tensor) -> Tensor:
        """Multiply by exp(sum of `coefficients`, n×10, times down^i · right^j), in the order of `TERMS`."""
        down, right = (_axis(size, images) for size in images.shape[-2:])
        terms = torch.stack([down[:, None] ** i * right[None, :] ** j for i, j in TERMS])
        return images * torch.einsum("nk,khw->nhw", coefficients, terms)[:, None].exp()


class Gamma(SignedCorruption):
    """Contrast bent towards dark or bright grey levels: x to the power of exp(amount)."""

    strengths = (0.1, 0.2, 0.3, 0.4, 0.5)
    unit = "logarithm of the exponent"

    def apply(self, images: Tensor, *, amount: Tensor) -> Tensor:
        return images ** per_image(amount.exp())


class Exposure(SignedCorruption):
    """Too large or too small a dose. Detectors show its logarithm, so that all grey levels shift."""

    strengths = (0.05, 0.1, 0.15, 0.2, 0.3)
    unit = "shift of the grey levels"

    def apply(self, images: Tensor, *, amount: Tensor) -> Tensor:
        return images + per_image(amount)


class WindowShift(Corruption):
    """Another window of display: its centre is shifted, and its width is another."""

    strengths = (0.05, 0.1, 0.15, 0.2, 0.3)
    unit = "shift of the centre, and share by which the width differs"

    def draw(self, images: Tensor, strength: float, seeds: Tensor) -> dict[str, Tensor]:
        return {"centre": 0.5 + strength * signs(seeds, 0, ()), "width": 1 + strength * signs(seeds, 1, ())}

    def apply(self, images: Tensor, *, centre: Tensor, width: Tensor) -> Tensor:
        return (images - per_image(centre)) / per_image(width) + 0.5


class Illumination(Corruption):
    """A lamp that is off centre: brightness falls linearly from the spot that it lights."""

    strengths = (0.2, 0.35, 0.5, 0.65, 0.8)
    unit = "share of the brightness that a corner loses"

    def draw(self, images: Tensor, strength: float, seeds: Tensor) -> dict[str, Tensor]:
        spots = 0.5 * (2 * uniform(seeds, 0, (2,)) - 1)
        return {"spots": spots, "loss": torch.full_like(spots[:, 0], strength)}

    def apply(self, images: Tensor, *, spots: Tensor, loss: Tensor) -> Tensor:
        """Darken by `loss` times the distance from the spot (n×2, from -1 to 1: down, right) per half diagonal."""
        down, right = (_axis(size, images) for size in images.shape[-2:])
        squares = (down[:, None] - spots[:, 0, None, None]) ** 2 + (right[None, :] - spots[:, 1, None, None]) ** 2
        return images * (1 - per_image(loss) * (squares / 2).sqrt().clamp(max=1)[:, None])


class IntensityScaling(SignedCorruption):
    """Another gain: all grey levels are multiplied by 1 ± amount."""

    strengths = (0.1, 0.2, 0.3, 0.4, 0.5)
    unit = "share of the intensity"

    def apply(self, images: Tensor, *, amount: Tensor) -> Tensor:
        return images * per_image(1 + amount)

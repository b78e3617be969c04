"""Corruptions by noise: Rician (MRI), Poisson (X-ray, CT), speckle (OCT, photographs)."""

import torch
from torch import Tensor

from medrobust.attacks.projection import per_image
from medrobust.core.seeds import normal, uniform
from medrobust.corruptions.base import Corruption


class RicianNoise(Corruption):
    """Noise of MRI magnitude images: both parts of the complex signal have Gaussian noise (Gudbjartsson 1995)."""

    strengths = (0.02, 0.04, 0.06, 0.09, 0.12)
    unit = "standard deviation of each part"
    per_series = False

    def draw(self, images: Tensor, strength: float, seeds: Tensor) -> dict[str, Tensor]:
        # Box & Muller 1958 give two independent normal numbers for two uniform ones.
        first, second = (uniform(seeds, stream, tuple(images.shape[1:])) for stream in (0, 1))
        radius, angle = strength * (-2 * torch.log1p(-first)).sqrt(), 2 * torch.pi * second
        return {"real": radius * angle.cos(), "imaginary": radius * angle.sin()}

    def apply(self, images: Tensor, *, real: Tensor, imaginary: Tensor) -> Tensor:
        return torch.hypot(images + real, imaginary)


class PoissonNoise(Corruption):
    """A low dose: the number of photons per pixel is a Poisson number."""

    strengths = (200.0, 100.0, 50.0, 25.0, 12.0)
    unit = "photons per white pixel"
    per_series = False

    def draw(self, images: Tensor, strength: float, seeds: Tensor) -> dict[str, Tensor]:
        photons = torch.full((len(images),), strength, device=images.device)
        return {"photons": photons, "quantiles": uniform(seeds, 0, tuple(images.shape[1:]))}

    def apply(self, images: Tensor, *, photons: Tensor, quantiles: Tensor) -> Tensor:
        """Count the `quantiles` (n×C×H×W, in [0, 1)) of Poisson numbers with mean `photons` (n) times a pixel."""
        mean = (images * per_image(photons)).double()
        most = float(photons.max())
        term = (-mean).exp()
        total, count = term.clone(), torch.zeros_like(mean)
        for number in range(1, int(most + 8 * most**0.5) + 10):
            count += quantiles >= total
            total += term.mul_(mean).div_(number)
        return (count / per_image(photons)).to(images.dtype)


class Speckle(Corruption):
    """Multiplicative noise, as coherent light causes it."""

    strengths = (0.1, 0.15, 0.2, 0.3, 0.4)
    unit = "standard deviation as a share of the pixel"
    per_series = False

    def draw(self, images: Tensor, strength: float, seeds: Tensor) -> dict[str, Tensor]:
        return {"factor": strength * normal(seeds, 0, tuple(images.shape[1:]))}

    def apply(self, images: Tensor, *, factor: Tensor) -> Tensor:
        return images + images * factor

"""Corruptions of the raw data of MRI (k-space, the Fourier transform of the image), as in TorchIO."""

import torch
from torch import Tensor

from medrobust.attacks.projection import per_image
from medrobust.core.seeds import uniform
from medrobust.corruptions.base import Corruption
from medrobust.corruptions.geometry import move


def to_kspace(images: Tensor) -> Tensor:
    """The spectrum of images n×C×H×W, complex, with frequency 0 at (H // 2, W // 2)."""
    return torch.fft.fftshift(torch.fft.fft2(images), dim=(-2, -1))


def from_kspace(spectrum: Tensor) -> Tensor:
    """The real part of the image with this spectrum."""
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1))).real


class Motion(Corruption):
    """The patient moves twice: the first, middle and last columns of k-space show three poses (Shaw et al. 2019).

    The middle columns, which hold most of the contrast, show the true pose.
    """

    strengths = (2.0, 4.0, 6.0, 8.0, 10.0)
    unit = "largest rotation in degrees and shift in % of the side"

    def draw(self, images: Tensor, strength: float, seeds: Tensor) -> dict[str, Tensor]:
        ways = 2 * uniform(seeds, 0, (2, 3)) - 1
        jitter = 0.1 * (2 * uniform(seeds, 1, (2,)) - 1)
        times = torch.tensor([1 / 3, 2 / 3], device=seeds.device) + jitter
        shifts = strength / 100 * images.shape[-1] * ways[..., 1:]
        return {"degrees": strength * ways[..., 0], "shifts": shifts, "times": times}

    def apply(self, images: Tensor, *, degrees: Tensor, shifts: Tensor, times: Tensor) -> Tensor:
        """Move the images; `degrees` n×2 and `shifts` n×2×2 of both poses, `times` n×2 as shares of the scan."""
        ends = (images.shape[-1] * times).floor()[:, :, None, None, None]
        columns = torch.arange(images.shape[-1], device=images.device)
        first, last = (to_kspace(move(images, degrees[:, k], shifts[:, k])) for k in (0, 1))
        true = to_kspace(images)
        spectrum = torch.where(columns < ends[:, 0], first, torch.where(columns < ends[:, 1], true, last))
        return from_kspace(spectrum)


class Ghosting(Corruption):
    """Copies of the image along one axis, as from breathing or pulse: every k-th line of k-space is weak."""

    strengths = (0.2, 0.4, 0.6, 0.8, 1.0)
    unit = "share of the signal that the lines lose"

    def draw(self, images: Tensor, strength: float, seeds: Tensor) -> dict[str, Tensor]:
        ghosts = 4 + (7 * uniform(seeds, 0, ())).floor()
        return {"ghosts": ghosts, "axis": uniform(seeds, 1, ()).round(), "loss": torch.full_like(ghosts, strength)}

    def apply(self, images: Tensor, *, ghosts: Tensor, axis: Tensor, loss: Tensor) -> Tensor:
        """Weaken every `ghosts`-th row (`axis` 0) or column (1) by the share `loss`; the middle one stays."""
        height, width = images.shape[-2:]
        rows = torch.arange(height, device=images.device).view(1, 1, -1, 1).expand(1, 1, height, width)
        columns = torch.arange(width, device=images.device).view(1, 1, 1, -1).expand(1, 1, height, width)
        upright = per_image(axis) == 0
        line = torch.where(upright, rows, columns)
        middle = torch.where(upright, height // 2, width // 2)
        weak = (line % per_image(ghosts) == 0) & (line != middle)
        return from_kspace(to_kspace(images) * (1 - per_image(loss) * weak))


class Spike(Corruption):
    """Stripes across the image: one value of k-space is far too large, as from a spark (herringbone artefact)."""

    strengths = (0.1, 0.2, 0.4, 0.7, 1.0)
    unit = "height of the spike as a share of the largest value"

    def draw(self, images: Tensor, strength: float, seeds: Tensor) -> dict[str, Tensor]:
        angle = 2 * torch.pi * uniform(seeds, 0, ())
        radius = 0.1 + 0.3 * uniform(seeds, 1, ())  # away from frequency 0, which is the brightness
        places = 0.5 + radius[:, None] * torch.stack([angle.sin(), angle.cos()], dim=1)
        return {"places": places, "height": torch.full_like(angle, strength)}

    def apply(self, images: Tensor, *, places: Tensor, height: Tensor) -> Tensor:
        """Add `height` times the largest value at `places`, n×2: row and column as shares of the size."""
        spectrum = to_kspace(images)
        row, column = (places * torch.tensor(images.shape[-2:], device=images.device)).floor().long().unbind(1)
        largest = spectrum.abs().amax((-2, -1))
        every = torch.arange(len(images), device=images.device)
        spectrum[every, :, row, column] += height[:, None] * largest
        return from_kspace(spectrum)

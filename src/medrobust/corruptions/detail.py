"""Corruptions of detail: resolution, blur, JPEG. They have no random parameter."""

import torch
from torch import Tensor
from torch.nn import functional

from medrobust.corruptions.base import FixedCorruption


class Resolution(FixedCorruption):
    """Fewer pixels, enlarged again to the size of the image; both bilinear, without aliasing."""

    strengths = (1.25, 1.5, 2.0, 3.0, 4.0)
    unit = "factor by which the pixels are larger"

    def apply(self, images: Tensor, *, amount: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        fewer = [max(round(size / float(amount)), 1) for size in (height, width)]
        for size in (fewer, [height, width]):
            images = functional.interpolate(images, size, mode="bilinear", antialias=True)
        return images


class Blur(FixedCorruption):
    """An image out of focus: a Gaussian filter."""

    strengths = (0.4, 0.7, 1.0, 1.5, 2.0)
    unit = "standard deviation in pixels"

    def apply(self, images: Tensor, *, amount: Tensor) -> Tensor:
        sigma = float(amount)
        radius = int(4 * sigma + 0.5)
        weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2).to(images)
        weights /= weights.sum()
        channels = images.shape[1]
        for shape, pad in (((1, 1, -1, 1), (0, 0, radius, radius)), ((1, 1, 1, -1), (radius, radius, 0, 0))):
            kernel = weights.view(shape).repeat(channels, 1, 1, 1)
            images = functional.conv2d(functional.pad(images, pad, mode="replicate"), kernel, groups=channels)
        return images


class Jpeg(FixedCorruption):
    """Lossy compression by the JPEG codec itself (libjpeg), on 8 bits."""

    strengths = (50.0, 30.0, 20.0, 12.0, 7.0)
    unit = "quality"

    def apply(self, images: Tensor, *, amount: Tensor) -> Tensor:
        from torchvision.io import decode_jpeg, encode_jpeg

        pixels = (images * 255).round().to(torch.uint8).cpu()
        files = encode_jpeg(list(pixels), quality=int(amount))
        return torch.stack([decode_jpeg(file) for file in files]).to(images) / 255

"""Random numbers by image: a hash of (seed, stream, element), the same on every device and in every batch.

The mixing function is the finaliser of SplitMix64 (Steele, Lea & Flood 2014).
"""

import math
import zlib
from collections.abc import Iterable

import torch
from torch import Tensor

_GOLDEN, _MIX1, _MIX2 = -7046029254386353131, -4658895280553007687, -7723592293110705685


def image_seeds(ids: Iterable[str], seed: int) -> Tensor:
    """Int64, n: each image's own seed, from its id and the run's seed (0 to 2³¹ - 1)."""
    return torch.tensor([zlib.crc32(name.encode()) + (seed << 32) for name in ids], dtype=torch.int64)


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(value: Tensor) -> Tensor:
    value = (value ^ _shifted(value, 30)) * _MIX1
    value = (value ^ _shifted(value, 27)) * _MIX2
    return value ^ _shifted(value, 31)


def uniform(seeds: Tensor, stream: int | Tensor, shape: tuple[int, ...]) -> Tensor:
    """Float32 in [0, 1), n×shape; row i depends on `seeds[i]` and `stream` (or `stream[i]`) alone.

    Args:
        seeds: int64, n.
        stream: distinguishes the draws of one attack (restart, step, kind); one for all, or int64 n.
        shape: of one image's draw.
    """
    # As a tensor the stream wraps around at 64 bits, as the hash wants; a Python integer would not.
    row = _mixed(_mixed(seeds * _GOLDEN) + torch.as_tensor(stream, device=seeds.device) * _GOLDEN)
    element = torch.arange(1, math.prod(shape) + 1, device=seeds.device)
    bits = _shifted(_mixed(row[:, None] + element[None, :] * _GOLDEN), 40)
    return (bits.float() / (1 << 24)).view(len(seeds), *shape)


def signs(seeds: Tensor, stream: int | Tensor, shape: tuple[int, ...]) -> Tensor:
    """Float32 of -1 and 1, n×shape, as `uniform`."""
    return torch.where(uniform(seeds, stream, shape) < 0.5, -1.0, 1.0)


def normal(seeds: Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
    """Float32 standard normal draws, n×shape, as `uniform` (Box & Muller 1958); takes streams 2k and 2k + 1."""
    radius = (-2 * torch.log1p(-uniform(seeds, 2 * stream, shape))).sqrt()
    return radius * (2 * torch.pi * uniform(seeds, 2 * stream + 1, shape)).cos()

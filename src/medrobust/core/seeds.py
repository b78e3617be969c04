"""Random numbers per image: a hash of (seed, stream, element), equal on every device and in every batch.

The hash mixes bits with the finaliser of SplitMix64 (Steele, Lea & Flood 2014).
"""

import math
import zlib
from collections.abc import Iterable

import torch
from torch import Tensor

_GOLDEN, _MIX1, _MIX2 = -7046029254386353131, -4658895280553007687, -7723592293110705685


def image_seeds(ids: Iterable[str], seed: int) -> Tensor:
    """One seed per image, int64 n, from the image's id and the run's seed (0 to 2³¹ - 1)."""
    return torch.tensor([zlib.crc32(name.encode()) + (seed << 32) for name in ids], dtype=torch.int64)


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(value: Tensor) -> Tensor:
    value = (value ^ _shifted(value, 30)) * _MIX1
    value = (value ^ _shifted(value, 27)) * _MIX2
    return value ^ _shifted(value, 31)


def uniform(seeds: Tensor, stream: int | Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform float32 draws in [0, 1), n×shape; row i depends only on `seeds[i]` and `stream` (or `stream[i]`).

    Seeds are int64 n. `stream`, an int or int64 n, distinguishes the draws of one attack (restart, step, purpose).
    """
    # The hash needs the product to wrap around at 64 bits: a tensor does, a Python integer does not.
    row = _mixed(_mixed(seeds * _GOLDEN) + torch.as_tensor(stream, device=seeds.device) * _GOLDEN)
    element = torch.arange(1, math.prod(shape) + 1, device=seeds.device)
    bits = _shifted(_mixed(row[:, None] + element[None, :] * _GOLDEN), 40)
    return (bits.float() / (1 << 24)).view(len(seeds), *shape)


def signs(seeds: Tensor, stream: int | Tensor, shape: tuple[int, ...]) -> Tensor:
    """Random signs, float32 -1 or 1, n×shape; arguments as in `uniform`."""
    return torch.where(uniform(seeds, stream, shape) < 0.5, -1.0, 1.0)


def normal(seeds: Tensor, stream: int | Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 draws, n×shape (Box & Muller 1958).

    Arguments as in `uniform`; stream k uses the uniform streams 2k and 2k + 1.
    """
    radius = (-2 * torch.log1p(-uniform(seeds, 2 * stream, shape))).sqrt()
    return radius * (2 * torch.pi * uniform(seeds, 2 * stream + 1, shape)).cos()

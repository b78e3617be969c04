"""Random numbers by image: a hash of (seed, stream, element), the same on every device and in every batch.

The mixing function is the finaliser of SplitMix64 (Steele, Lea & Flood 2014).
"""

import math

import torch
from torch import Tensor

_GOLDEN, _MIX1, _MIX2 = -7046029254386353131, -4658895280553007687, -7723592293110705685


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(value: Tensor) -> Tensor:
    value = (value ^ _shifted(value, 30)) * _MIX1
    value = (value ^ _shifted(value, 27)) * _MIX2
    return value ^ _shifted(value, 31)


def uniform(seeds: Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
    """Float32 in [0, 1), n×shape; row i depends on `seeds[i]` and `stream` alone.

    Args:
        seeds: int64, n.
        stream: distinguishes the draws of one attack (restart, step, kind).
        shape: of one image's draw.
    """
    # As a tensor the stream wraps around at 64 bits, as the hash wants; a Python integer would not.
    row = _mixed(_mixed(seeds * _GOLDEN) + torch.tensor(stream, device=seeds.device) * _GOLDEN)
    element = torch.arange(1, math.prod(shape) + 1, device=seeds.device)
    bits = _shifted(_mixed(row[:, None] + element[None, :] * _GOLDEN), 40)
    return (bits.float() / (1 << 24)).view(len(seeds), *shape)


def signs(seeds: Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
    """Float32 of -1 and 1, n×shape, as `uniform`."""
    return torch.where(uniform(seeds, stream, shape) < 0.5, -1.0, 1.0)

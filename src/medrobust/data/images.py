"""One image: from encoded bytes or raw intensities to the square uint8 array of the store."""

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

#: More pixels than this in one image is taken for a decompression bomb.
MAX_PIXELS = 64_000_000
Window = tuple[float, float]


@dataclass(frozen=True)
class Raster:
    """Pixels that are decoded already.

    Attributes:
        pixels: uint8, H×W or H×W×3.
        mask: bool, H×W: a region that the publisher outlined (a tumour), or None.
        bits: depth of the intensities as published.
    """

    pixels: np.ndarray
    mask: np.ndarray | None = None
    bits: int = 8


def decode(content: bytes, size: int, channels: int, window: Window | None = None) -> np.ndarray:
    """An encoded image as uint8, size×size (×3 for three channels), as the store would hold it; see `fit`."""
    return fit(content, size, channels, window).pixels


def fit(content: bytes | Raster, size: int, channels: int, window: Window | None = None) -> Raster:
    """Bring one image to size×size (×3 for three channels).

    Palettes and CMYK become grey or RGB, transparent pixels stand over black, the camera's orientation (EXIF) is
    applied. Grey images deeper than 8 bits are windowed, see `_shallow`.

    Args:
        content: an encoded image, or pixels.
        size: pixels a side.
        channels: 1 grey, 3 colour.
        window: intensities of black and white for grey images deeper than 8 bits.

    Raises:
        ValueError: the bytes are empty, truncated, no image, animated, too many pixels, or need a window.
    """
    from PIL import Image

    if isinstance(content, Raster):
        picture, mask, bits = Image.fromarray(content.pixels), content.mask, content.bits
    else:
        mask, (picture, bits) = None, _open(content, window)
    picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    if mask is not None and mask.shape != (size, size):
        share = Image.fromarray(mask.astype(np.uint8) * 255).resize((size, size), Image.Resampling.BILINEAR)
        mask = np.asarray(share) >= 128
    return Raster(np.asarray(picture), mask, bits)


def to_bytes(values: np.ndarray, window: Window) -> np.ndarray:
    """Map intensities linearly to uint8: 0 at and below the window, 255 at and above it; NaN is 0."""
    low, high = window
    share = (np.clip(values, low, high, dtype=np.float64) - low) * (255 / (high - low))
    if values.dtype.kind == "f":
        share[np.isnan(share)] = 0
    pixels: np.ndarray = np.rint(share).astype(np.uint8)
    return pixels


def _open(content: bytes, window: Window | None) -> tuple["Image.Image", int]:
    """Decode with Pillow to an 8-bit picture without transparency; return it and the published depth in bits."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not content:
        raise ValueError("an empty file")
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS}")
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise ValueError(f"{frames} frames")
            image.load()
            picture = ImageOps.exif_transpose(image)
            if picture.mode == "F" or picture.mode.startswith("I"):
                return _shallow(picture, window)
            if picture.has_transparency_data:
                black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
                picture = Image.alpha_composite(black, picture.convert("RGBA")).convert("RGB")
            return picture, 8
    except UnidentifiedImageError:
        raise ValueError("no image") from None
    except (OSError, SyntaxError, EOFError, TypeError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None


def _shallow(picture: "Image.Image", window: Window | None) -> tuple["Image.Image", int]:
    """Eight bits of a deeper grey picture: those inside the window, or without one the top eight of sixteen."""
    from PIL import Image

    values = np.asarray(picture)
    bits = 16 if values.dtype.kind in "iu" and values.min() >= 0 and values.max() < 2**16 else 32
    if window is not None:
        pixels = to_bytes(values, window)
    elif bits == 16:
        pixels = (values.astype(np.uint32) >> 8).astype(np.uint8)
    else:
        raise ValueError(
            f"intensities from {values.min():g} to {values.max():g}: data.window must say what is white"
        )
    return Image.fromarray(pixels), bits

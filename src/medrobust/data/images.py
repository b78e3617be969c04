"""Decode one image: from encoded bytes or raw intensities to the square uint8 array of the store."""

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

#: Endings of files that are read as images, in lower case.
IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".webp", ".avif",
    ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".pbm", ".pgm", ".ppm", ".pnm", ".pfm", ".tga",
}  # fmt: skip
#: An image with more pixels than this is refused as a decompression bomb.
MAX_PIXELS = 64_000_000
#: Tag of a TIFF that says whether 0 is white (0) or black (1).
PHOTOMETRIC = 262
Window = tuple[float, float]
#: A picture is in colour if this share of its pixels has channels that differ by more than `SPREAD` levels. Grey
#: pictures that were stored as colour JPEG stay below it.
COLOURED, SPREAD = 0.01, 24


@dataclass(frozen=True)
class Raster:
    """Decoded pixels."""

    pixels: np.ndarray  # uint8, H×W or H×W×3
    mask: np.ndarray | None = None  # bool, H×W: a region that the publisher outlined (for example a tumour)
    bits: int = 8  # bit depth of the published intensities


def decode(content: bytes, size: int, channels: int, window: Window | None = None) -> np.ndarray:
    """Decode an image to uint8, size×size (×3 for three channels); see `to_raster`."""
    return to_raster(content, size, channels, window).pixels


def to_raster(
    content: "bytes | Raster | Image.Image", size: int, channels: int, window: Window | None = None, *,
    only_grey: bool = False,
) -> Raster:  # fmt: skip
    """Decode one image, or take a picture of Pillow, and resize it to size×size pixels (×3 for three channels).

    Palettes and CMYK are converted to grey or RGB, transparent pixels are composited over black, and the EXIF
    orientation is applied. Grey images deeper than 8 bits are windowed: `window` holds the intensities of black
    and white, see `_to_8_bits`. Of a multi-picture photograph (MPO), the first picture is used. Resizing is
    bilinear and ignores the aspect ratio; the folder of a model says so (`models.use.StoredInput`).

    Raises:
        ValueError: the bytes are empty, truncated or not an image; the image has several frames or too many
            pixels, needs a window, or is a deep colour image, which cannot be windowed; it is in colour and
            `only_grey` is set.
    """
    from PIL import Image

    if isinstance(content, Raster):
        picture, mask, bits = Image.fromarray(content.pixels), content.mask, content.bits
    else:
        mask, (picture, bits) = None, _open(content, window)
    if only_grey and _is_coloured(picture):
        raise ValueError("it is in colour, and the model was trained on grey images; convert it to grey")
    picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    if mask is not None and mask.shape != (size, size):
        coverage = Image.fromarray(mask.astype(np.uint8) * 255).resize((size, size), Image.Resampling.BILINEAR)
        mask = np.asarray(coverage) >= 128
    return Raster(np.asarray(picture), mask, bits)


def to_uint8(values: np.ndarray, window: Window) -> np.ndarray:
    """Map intensities linearly to uint8: 0 at and below the window, 255 at and above it; NaN becomes 0."""
    low, high = window
    scaled = (np.clip(values, low, high, dtype=np.float64) - low) * (255 / (high - low))
    if values.dtype.kind == "f":
        scaled[np.isnan(scaled)] = 0
    return np.rint(scaled).astype(np.uint8)


def _is_coloured(picture: "Image.Image") -> bool:
    if picture.mode in ("1", "L", "LA"):
        return False
    pixels = np.asarray(picture.convert("RGB"))
    return bool((pixels.max(2) - pixels.min(2) > SPREAD).mean() > COLOURED)


def _open(content: "bytes | Image.Image", window: Window | None) -> tuple["Image.Image", int]:
    """Decode with Pillow to an 8-bit image without transparency; return it and the published bit depth."""
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise ValueError("the file is empty")
    try:
        if isinstance(content, Image.Image):
            return _flat(content, window)
        with Image.open(io.BytesIO(content)) as image:
            return _flat(image, window)
    except UnidentifiedImageError:
        raise ValueError("not an image") from None
    except (OSError, SyntaxError, EOFError, TypeError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None


def _flat(image: "Image.Image", window: Window | None) -> tuple["Image.Image", int]:
    from PIL import Image, ImageOps

    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS}")
    # The other pictures of an MPO are smaller versions of the first, or the second view of a stereo pair.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        raise ValueError(f"it has {frames} frames; save the one to be used as a file of its own")
    # Pillow keeps the top eight bits of deep colours; the depth is only in its decoder's arguments.
    bits = 16 if ";16" in str(getattr(image, "tile", "")) else 8
    white_is_zero = image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == 0  # type: ignore[attr-defined]
    image.load()
    picture = ImageOps.exif_transpose(image)
    if picture.mode == "F" or picture.mode.startswith("I"):
        grey, bits = _to_8_bits(picture, window)
        return ImageOps.invert(grey) if white_is_zero else grey, bits  # Pillow inverts only 8-bit TIFFs
    if bits > 8 and window is not None:
        raise ValueError("its colours have 16 bits, and data.window is for grey images; save it with 8 bits")
    if picture.has_transparency_data:
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture.convert("RGBA")).convert("RGB")
    return picture, bits


def _to_8_bits(picture: "Image.Image", window: Window | None) -> tuple["Image.Image", int]:
    """Reduce a deeper grey image to 8 bits: by the window, or without one by the top eight of 16 bits."""
    from PIL import Image

    values = np.asarray(picture)
    bits = 16 if values.dtype.kind in "iu" and values.min() >= 0 and values.max() < 2**16 else 32
    if window is not None:
        pixels = to_uint8(values, window)
    elif bits == 16:
        pixels = (values.astype(np.uint32) >> 8).astype(np.uint8)
    else:
        if np.isnan(values).any():
            raise ValueError("it has NaN pixels; replace them, or set data.window, which makes them black")
        raise ValueError(f"intensities range from {values.min():g} to {values.max():g}; set data.window")
    return Image.fromarray(pixels), bits

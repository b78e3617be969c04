"""Pictures for a page: PNG files as text, each with the versions of one image below each other."""

import base64
import io

import numpy as np
from PIL import Image

#: Level of an unchanged pixel in a picture of changes, and the levels above it for the largest change.
MIDDLE, REACH = 128, 127


def picture(pixels: np.ndarray) -> str:
    """The data URI of a PNG of levels, uint8 H×W or H×W×3."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def levels(images: np.ndarray) -> np.ndarray:
    """Images C×H×W in [0, 1] as uint8 H×W (one channel) or H×W×3."""
    pixels = (images * 255).round().astype(np.uint8).transpose(1, 2, 0)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def change_levels(change: np.ndarray, largest: float) -> np.ndarray:
    """A change C×H×W as uint8 H×W or H×W×3: 128 + 127 · change / largest. It keeps changes below a grey level."""
    scaled = change / largest if largest else change
    pixels = (MIDDLE + REACH * scaled).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def stacked(tiles: list[np.ndarray]) -> str | None:
    """One picture of tiles of equal size below each other; None without any."""
    return picture(np.concatenate(tiles)) if tiles else None

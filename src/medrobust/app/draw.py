"""The pictures of the page, as `data:` addresses: nothing that is shown becomes a file."""

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from medrobust.app.compare import ImageVersion
from medrobust.inference.pictures import OPACITY, ORANGE

#: Orange and purple of the change, RGB in [0, 1].
BRIGHTER, DARKER = np.array([0.70, 0.35, 0.02]), np.array([0.33, 0.15, 0.53])


def picture(pixels: np.ndarray) -> str:
    """The address of an image, H×W or H×W×3 in [0, 1]."""
    file = BytesIO()
    Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def overlay(version: ImageVersion) -> np.ndarray:
    """The heat map over the grey image, H×W×3, in the colours of `medrobust predict --maps`."""
    share = OPACITY * version.heat[..., None]
    return grey(version.pixels)[..., None] * (1 - share) + ORANGE / 255 * share


def change(clean: ImageVersion, attacked: ImageVersion) -> tuple[np.ndarray, float]:
    """The change on white, H×W×3 (orange = brighter, purple = darker), and how often it is enlarged.

    The largest change has the full colour.
    """
    difference = grey(attacked.pixels) - grey(clean.pixels)
    largest = float(np.abs(difference).max())
    scale = 1 / largest if largest else 1.0
    share = (np.abs(difference) * scale)[..., None]
    return 1 - share * (1 - np.where(difference[..., None] > 0, BRIGHTER, DARKER)), scale


def grey(pixels: np.ndarray) -> np.ndarray:
    """The mean of the channels, H×W."""
    return pixels.mean(2) if pixels.ndim == 3 else pixels

"""Pictures of answers: what the model looks at, and what an attack changes."""

from typing import Any

import numpy as np
import torch

from medrobust.data.inputs import InputImage
from medrobust.explain.maps import choose_layer, explanation_maps
from medrobust.inference.attack import Attacked
from medrobust.inference.inputs import to_batch
from medrobust.inference.loaded import LoadedModel

#: Least side of a panel, to which small images are enlarged.
SIDE = 256
#: Colour of what matters, and its largest opacity.
ORANGE, OPACITY = np.array([230.0, 94.0, 0.0]), 0.85


class Maps:
    """Draws Grad-CAM for the answered class beside the image; saliency for a model without maps of features."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.layer: Any = ()

    def draw(self, one: InputImage, label: str) -> Any:
        """A picture of Pillow: the image, and the image with the map for the class `label`."""
        batch = to_batch([one], self.model.device)
        if self.layer == ():
            self.layer = choose_layer(self.model.network, batch, self.model.described().grid)
        target = torch.tensor([self.model.classes.index(label)])
        maps = explanation_maps(self.model.network, batch, target, self.layer[0] if self.layer else None)
        weight = (maps["gradcam"] if "gradcam" in maps else maps["saliency"])[0][..., None] * OPACITY
        pixels = _colour(batch[0].cpu().numpy())
        return _panels([pixels, pixels * (1 - weight) + ORANGE * weight])


def draw_attack(result: Attacked) -> tuple[Any, float]:
    """A picture of Pillow: the image, the attacked image, and their difference around grey; and its factor."""
    change = result.attacked - result.image
    largest = float(np.abs(change).max())
    factor = 0.5 / largest if largest > 0 else 1.0
    panels = [result.image, result.attacked, 0.5 + change * factor]
    return _panels([_colour(panel) for panel in panels]), factor


def _colour(pixels: np.ndarray) -> np.ndarray:
    """C×H×W in [0, 1] to H×W×3 from 0 to 255."""
    return np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0) * 255.0


def _panels(panels: list[np.ndarray]) -> Any:
    from PIL import Image

    whole = Image.fromarray(np.concatenate(panels, axis=1).round().clip(0, 255).astype(np.uint8))
    scale = max(1, -(-SIDE // whole.height))
    return whole.resize((whole.width * scale, whole.height * scale), Image.Resampling.NEAREST)

"""One image under one model, clean and attacked: what the page shows."""

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medrobust.app.attack_choices import AttackChoice
from medrobust.attacks.base import frozen
from medrobust.data.inputs import InputImage
from medrobust.explain.maps import choose_layer, explanation_maps
from medrobust.inference.inputs import to_batch, to_inputs
from medrobust.inference.loaded import LoadedModel
from medrobust.inference.predict import Prediction, answer


@dataclass(frozen=True)
class ImageVersion:
    """A clean or attacked image and the model's answer for it.

    `pixels` are H×W (grey) or H×W×3 in [0, 1]. `heat` shows what raises the logit of the most probable class, H×W
    from 0 to 1, and `kind` how it was made: `gradcam`, or `saliency` for models without feature maps.
    """

    pixels: np.ndarray
    heat: np.ndarray
    kind: str
    prediction: Prediction

    @property
    def top(self) -> str:
        """The most probable class, also of a rejected image."""
        return max(self.prediction.probabilities, key=lambda name: self.prediction.probabilities[name])


@dataclass(frozen=True)
class Comparison:
    """An image before and after an attack; `attacked` is None at radius 0."""

    clean: ImageVersion
    attacked: ImageVersion | None

    @property
    def fooled(self) -> bool:
        """Whether the attack changed the most probable class."""
        return self.attacked is not None and self.attacked.top != self.clean.top


def compare(model: LoadedModel, image: InputImage, choice: AttackChoice, eps: float) -> Comparison:
    """Predict and explain an image and its attacked version.

    The attack moves away from the class that the model predicts for the clean image, because the true class is
    not known here. The same image, attack and radius give the same result.
    """
    images = to_batch([image], model.device)
    if eps > 0:
        images = torch.cat([images, _attacked(model, images, choice, eps)])
    predictions = [one for one in answer(model, to_inputs(images, model)) if isinstance(one, Prediction)]
    tops = torch.tensor([int(np.argmax(list(each.probabilities.values()))) for each in predictions])
    found = choose_layer(model.network, images[:1], model.described().grid)
    maps = explanation_maps(model.network, images, tops, found[0] if found else None)
    kind = next(iter(maps))
    versions = [
        ImageVersion(pixels, maps[kind][row], kind, predictions[row])
        for row, pixels in enumerate(images.permute(0, 2, 3, 1).squeeze(-1).cpu().numpy())
    ]
    return Comparison(versions[0], versions[1] if eps > 0 else None)


def _attacked(model: LoadedModel, images: Tensor, choice: AttackChoice, eps: float) -> Tensor:
    with frozen(model.network), torch.no_grad():
        labels = model.network(images).argmax(1)
    seeds = torch.tensor([zlib.crc32(images.cpu().numpy().tobytes())], device=images.device)
    return choice.at(eps)(model.network, images, labels, seeds=seeds)

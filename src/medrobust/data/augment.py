"""Random augmentation of training images with kornia, on the device of the batch."""

from typing import get_args

from torch import Tensor, nn

from medrobust.core.params.training import AugmentParams, Change


def build_augmentation(augment: AugmentParams) -> nn.Module:
    """Build a module that augments float images n×C×H×W in [0, 1]; the result stays in [0, 1].

    It uses torch's global random state, which `seed_everything` seeds and a resume file restores.
    """
    import kornia.augmentation as K

    flip = 0.5 if augment.p else 0.0
    defaults = dict.fromkeys(get_args(Change), augment.p) | {"horizontal_flip": flip, "vertical_flip": flip}
    p = defaults | augment.probabilities
    steps: list[nn.Module] = []
    if augment.horizontal_flip:
        steps.append(K.RandomHorizontalFlip(p=p["horizontal_flip"]))
    if augment.vertical_flip:
        steps.append(K.RandomVerticalFlip(p=p["vertical_flip"]))
    shift = (augment.translate, augment.translate)
    steps += [
        # A single resampling for rotation, translation and scale is cheaper and blurs less than three.
        K.RandomAffine(degrees=augment.rotation, translate=shift, scale=tuple(augment.scale), p=p["affine"]),
        K.RandomBrightness((1 - augment.brightness, 1 + augment.brightness), p=p["brightness"]),
        K.RandomContrast((1 - augment.contrast, 1 + augment.contrast), p=p["contrast"]),
    ]
    if augment.gamma != [1, 1]:
        steps.append(K.RandomGamma(tuple(augment.gamma), p=p["gamma"]))
    steps.append(K.RandomSharpness(augment.sharpness, p=p["sharpness"]))
    return nn.Sequential(*steps, _Clamp())


class _Clamp(nn.Module):
    """Clamp to [0, 1], because interpolation and sharpening overshoot slightly."""

    def forward(self, images: Tensor) -> Tensor:
        return images.clamp(0, 1)

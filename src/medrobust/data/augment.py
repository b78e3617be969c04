"""Random changes of training images, by kornia, on the device where the batch is."""

from torch import Tensor, nn

from medrobust.core.params.training import AugmentParams


def build_augmentation(augment: AugmentParams) -> nn.Module:
    """A module that changes float images n×C×H×W in [0, 1] at random and keeps them there.

    It draws from torch's global random state, which `seed_everything` seeds and a resume file restores.
    """
    import kornia.augmentation as K

    p = augment.p
    steps: list[nn.Module] = []
    if augment.horizontal_flip:
        steps.append(K.RandomHorizontalFlip(p=0.5 if p else 0.0))
    if augment.vertical_flip:
        steps.append(K.RandomVerticalFlip(p=0.5 if p else 0.0))
    low, high = augment.scale
    shift = (augment.translate, augment.translate)
    steps += [
        # One resampling for rotation, translation and scale: cheaper and less blurred than three.
        K.RandomAffine(degrees=augment.rotation, translate=shift, scale=(low, high), p=p),
        K.RandomBrightness((1 - augment.brightness, 1 + augment.brightness), p=p),
        K.RandomContrast((1 - augment.contrast, 1 + augment.contrast), p=p),
        K.RandomSharpness(augment.sharpness, p=p),
    ]
    return nn.Sequential(*steps, _Clamp())


class _Clamp(nn.Module):
    """Interpolation and sharpening overshoot by a little."""

    def forward(self, images: Tensor) -> Tensor:
        return images.clamp(0, 1)

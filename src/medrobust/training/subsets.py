"""Images whose labels are taken away, and images without labels for semi-supervised training."""

from pathlib import Path

import numpy as np

from medrobust.core.errors import UserError
from medrobust.core.intervals import strata
from medrobust.data.store import Subset

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def hide_labels(subset: Subset, share: float, seed: int) -> tuple[Subset, Subset]:
    """Take the labels of a share of the patients away: the labelled part, and the part that lost them.

    The share is taken in each class, rounded down, and leaves each class a patient; a patient's images stay
    together. The second part still carries labels: its caller must replace them.

    Raises:
        UserError: every class has so few patients that none can lose its labels.
    """
    rng, hidden = np.random.default_rng([seed, 2]), []
    patients, owner = np.unique(subset.patients, return_inverse=True)
    classes = strata(owner, subset.labels)
    for label in range(len(subset.classes)):
        own = patients[classes == label]
        hidden += rng.permutation(own)[: min(int(share * len(own)), max(len(own) - 1, 0))].tolist()
    if not hidden:
        found = f"{share:g} of {len(patients)} training patients is no patient in any class"
        raise UserError("params.yaml: adv.unlabelled", found, "Take a larger share, or a folder of images")
    chosen = np.isin(subset.patients, hidden)
    return subset.take(np.flatnonzero(~chosen)), subset.take(np.flatnonzero(chosen))


def read_folder(folder: Path, like: Subset) -> Subset:
    """Every image below a folder, in the size and channels of `like`; all labels are 0.

    Raises:
        UserError: no such folder, no image in it, or one that does not decode.
    """
    from medrobust.data.images import decode

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        remedy = f"Give a folder with images ({', '.join(sorted(SUFFIXES))}), or a share of the training patients"
        raise UserError(f"params.yaml: adv.unlabelled: {folder}", "no image there", remedy)
    size, channels = like.store_images.shape[1], 1 if like.store_images.ndim == 3 else 3
    pixels = []
    for path in files:
        try:
            pixels.append(decode(path.read_bytes(), size, channels))
        except ValueError as error:
            raise UserError(str(path), f"does not decode ({error})", "Mend or remove the file") from None
    names = np.array([path.relative_to(folder).as_posix() for path in files])
    labels = np.zeros(len(files), dtype=np.int64)
    return Subset(np.stack(pixels), np.arange(len(files)), labels, names, names, like.classes)

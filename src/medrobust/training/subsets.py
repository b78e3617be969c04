"""Unlabelled images for semi-supervised training: patients whose labels are hidden, or a folder of images."""

from pathlib import Path

import numpy as np

from medrobust.core.errors import UserError
from medrobust.core.intervals import strata
from medrobust.data.store import Subset

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def hide_labels(subset: Subset, share: float, seed: int) -> tuple[Subset, Subset]:
    """Split a subset by patient into a labelled and an unlabelled part.

    The share of unlabelled patients is applied per class and rounded down; at least one patient per class stays
    labelled. All images of a patient are in the same part. The second part still carries the true labels, which
    the caller must replace.

    Raises:
        UserError: every class has so few patients that the share selects none.
    """
    rng, hidden = np.random.default_rng([seed, 2]), []
    patients, patient_index = np.unique(subset.patients, return_inverse=True)
    patient_classes = strata(patient_index, subset.labels)
    for label in range(len(subset.classes)):
        of_class = patients[patient_classes == label]
        hidden += rng.permutation(of_class)[: min(int(share * len(of_class)), max(len(of_class) - 1, 0))].tolist()
    if not hidden:
        found = f"{share:g} of {len(patients)} training patients selects no patient of any class"
        raise UserError("params.yaml: adv.unlabelled", found, "Set a larger share, or use a folder of images")
    is_hidden = np.isin(subset.patients, hidden)
    return subset.take(np.flatnonzero(~is_hidden)), subset.take(np.flatnonzero(is_hidden))


def read_folder(folder: Path, like: Subset) -> Subset:
    """Read every image below a folder, in the size and with the channels of `like`; all labels are 0.

    Raises:
        UserError: the folder does not exist or has no images, or an image does not decode.
    """
    from medrobust.data.images import decode

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        remedy = f"Use a folder with images ({', '.join(sorted(SUFFIXES))}), or a share of the training patients"
        raise UserError(f"params.yaml: adv.unlabelled: {folder}", "has no images", remedy)
    size, channels = like.store_images.shape[1], 1 if like.store_images.ndim == 3 else 3
    pixels = []
    for path in files:
        try:
            pixels.append(decode(path.read_bytes(), size, channels))
        except ValueError as error:
            raise UserError(str(path), f"does not decode ({error})", "Fix or remove the file") from None
    names = np.array([path.relative_to(folder).as_posix() for path in files])
    labels = np.zeros(len(files), dtype=np.int64)
    return Subset(np.stack(pixels), np.arange(len(files)), labels, names, names, like.classes)

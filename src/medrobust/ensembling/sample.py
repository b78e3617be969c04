"""What members say of the validation images, and how its patients are dealt into folds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from medrobust.core.errors import UserError


@dataclass(frozen=True)
class Sample:
    """Answers of M members to the same n images.

    Attributes:
        clean, robust: log-probabilities, float64 M×n×K, of the images as they are and attacked.
        labels: int, n.
        patients: text, n.
        classes: K names.
    """

    clean: np.ndarray
    robust: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    classes: list[str]

    def take(self, rows: np.ndarray) -> "Sample":
        """Some images: positions or a mask."""
        return replace(
            self, clean=self.clean[:, rows], robust=self.robust[:, rows], labels=self.labels[rows],
            patients=self.patients[rows],
        )  # fmt: skip

    def absent(self) -> list[str]:
        """Classes without an image."""
        return [name for k, name in enumerate(self.classes) if not (self.labels == k).any()]

    def folds(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(other images, images of the fold), as positions; no patient is in both, and classes are spread.

        Args:
            count: how many folds; at most as many as patients.

        Raises:
            UserError: there is only one patient, or no class has images enough.
        """
        import warnings

        from sklearn.model_selection import StratifiedGroupKFold

        patients = len(np.unique(self.patients))
        most = min(count, patients, int(np.bincount(self.labels).max()))
        if most < 2:
            found = f"{len(self.labels)} validation images of {patients} patients cannot be dealt into folds"
            raise UserError("params.yaml: split.val", found, "Give validation more patients, or vote with equal")
        with warnings.catch_warnings():  # of classes with fewer images than folds, which `fit` judges itself
            warnings.simplefilter("ignore", UserWarning)
            yield from StratifiedGroupKFold(most).split(self.labels, self.labels, self.patients)


def log_losses(sample: Sample, clean: np.ndarray, robust: np.ndarray) -> tuple[float, float]:
    """Mean negative log-likelihood, in nats, of a vote's log-probabilities n×K on clean and attacked images."""
    rows = np.arange(len(sample.labels))
    return float(-clean[rows, sample.labels].mean()), float(-robust[rows, sample.labels].mean())

"""The members' predictions on validation images, and folds of its patients."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from medrobust.core.errors import UserError
from medrobust.core.metrics import nll


@dataclass(frozen=True)
class MemberPredictions:
    """Log-probabilities, float64 M×n×K, of M members on the same n images, clean and attacked (`robust`)."""

    clean: np.ndarray
    robust: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    classes: list[str]

    def select(self, rows: np.ndarray) -> "MemberPredictions":
        """The images at some positions or under a mask."""
        return replace(
            self, clean=self.clean[:, rows], robust=self.robust[:, rows], labels=self.labels[rows],
            patients=self.patients[rows],
        )  # fmt: skip

    def absent(self) -> list[str]:
        """Classes without an image."""
        return [name for k, name in enumerate(self.classes) if not (self.labels == k).any()]

    def folds(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions (outside the fold, in the fold) per fold; all images of a patient are in the same fold.

        Folds are stratified by class. `count` is reduced to the number of patients, or of images of the largest
        class.

        Raises:
            UserError: fewer than two folds are possible.
        """
        import warnings

        from sklearn.model_selection import StratifiedGroupKFold

        patients = len(np.unique(self.patients))
        most = min(count, patients, int(np.bincount(self.labels).max()))
        if most < 2:
            found = f"{len(self.labels)} validation images of {patients} patients cannot be divided into folds"
            raise UserError("params.yaml: split.val", found, "Increase split.val, or set ensemble.method: equal")
        with warnings.catch_warnings():  # about classes with fewer images than folds, which the methods check
            warnings.simplefilter("ignore", UserWarning)
            yield from StratifiedGroupKFold(most).split(self.labels, self.labels, self.patients)


def log_losses(predictions: MemberPredictions, clean: np.ndarray, robust: np.ndarray) -> tuple[float, float]:
    """Mean negative log-likelihood, in nats, of an ensemble on clean and on attacked images.

    `clean` and `robust` are its log-probabilities, n×K. Of the members' predictions only the labels are used.
    """
    return nll(predictions.labels, clean), nll(predictions.labels, robust)

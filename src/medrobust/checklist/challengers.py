"""Checks that compare a suite with the challengers: what do they fool that the suite did not?"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from medrobust.checklist.base import Measurement, SuiteEvidence, lower_bound
from medrobust.checklist.challenge import NOISE

NO_ROBUST_IMAGE = "no image is robust"


def loss_to(challenger: str) -> Callable[[SuiteEvidence], Measurement]:
    """Measures what the suite's robust accuracy loses to a challenger."""
    return lambda evidence: robust_accuracy_lost(evidence, challenger)


def robust_accuracy_lost(evidence: SuiteEvidence, challenger: str) -> Measurement:
    """Robust accuracy, as a share, that a challenger takes away beyond the suite, at the checks' radius.

    The challenger tries a sample of the robust images. The lower bound of the share that it fools, times the
    robust accuracy, is the least error of the whole evaluation.
    """
    challenge = evidence.challenge
    if challenge is not None and challenger in challenge.skipped:
        return Measurement(None, challenge.skipped[challenger])
    _, robust, tried = _robust_images(evidence)
    if challenge is None or not tried.any():
        return Measurement(None, NO_ROBUST_IMAGE)
    count, total = int((challenge.fooled[challenger] & tried).sum()), int(tried.sum())
    lost = lower_bound(count, total) * float(robust.mean())
    proof = f"; robust accuracy is at least {lost:.3f} too high" if count else ""
    what = challenge.descriptions[challenger]
    text = f"{what}: fools {count} of {total} images that are robust at eps {challenge.eps:.3g}"
    return Measurement(lost, text + proof)


def noise(evidence: SuiteEvidence) -> Measurement:
    """Share of robust images that noise brings nearer to a wrong prediction than the suite did."""
    challenge = evidence.challenge
    table, _, tried = _robust_images(evidence)
    if challenge is None or not tried.any():
        return Measurement(None, NO_ROBUST_IMAGE)
    ids = table["id"].iloc[challenge.rows]
    nearer = (challenge.fooled[NOISE] | (challenge.noise_margin > _largest_margin(evidence, ids)))[tried]
    count, total = int(nearer.sum()), len(nearer)
    text = (
        f"{challenge.descriptions[NOISE]}: nearer to an error than the suite's best on {count} of {total} images"
    )
    return Measurement(lower_bound(count, total), f"{text} that are robust at eps {challenge.eps:.3g}")


def _robust_images(evidence: SuiteEvidence) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The records at the checks' radius, which images are robust there, and which of the challenged ones are."""
    table = evidence.records_at(evidence.eps)
    robust = ~table["fooled"].to_numpy()
    rows = evidence.challenge.rows if evidence.challenge else np.zeros(0, dtype=int)
    return table, robust, robust[rows]


def _largest_margin(evidence: SuiteEvidence, ids: pd.Series) -> np.ndarray:
    """The largest margin over all attempts per image, at any radius."""
    tried = evidence.attempts[evidence.attempts["attack"] != "stored"]
    return tried.groupby("id")["margin"].max().loc[ids].to_numpy()

"""Checks that compare a suite with the challengers: what do they fool that the suite did not?"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from medrobust.checklist.base import Measurement, Paths, SuiteEvidence, lower_bound
from medrobust.checklist.challenge import NOISE

NO_ROBUST_IMAGE = "no image is robust"
NO_BALL = "for balls only, not for patches"
#: Gains of the margin along a path, over what its gradients add up to, that a useful gradient may have.
LEAST_GAIN, MOST_GAIN = 0.8, 1.25
#: Cosine of two gradients along a path, below which one says little about the other.
LEAST_COSINE = 0.5
#: Error of the gradients about a random step, in units of the change that such a step has on average.
MOST_ERROR = 0.5
#: Robust accuracy that weaker suites may take away: by chance, each finds an image that the strongest misses.
FEW = 0.005


def loss_to(challenger: str) -> Callable[[SuiteEvidence], Measurement]:
    """Measures what the suite's robust accuracy loses to a challenger."""
    return lambda evidence: robust_accuracy_lost(evidence, challenger)


def robust_accuracy_lost(evidence: SuiteEvidence, challenger: str) -> Measurement:
    """Robust accuracy, as a share, that a challenger takes away beyond the suite, at the checks' radius.

    The challenger tries a sample of the robust images, first those that no suite fooled, the hardest. The
    lower bound of the share that it fools, times the robust accuracy, is the least error of the whole evaluation.
    """
    challenge = evidence.challenge
    if challenge is not None and challenger in challenge.skipped:
        return Measurement(None, challenge.skipped[challenger])
    _, robust, tried = _robust_images(evidence)
    if challenge is None or not tried.any():
        return Measurement(None, _reason(evidence))
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
        return Measurement(None, _reason(evidence))
    ids = table["id"].iloc[challenge.rows]
    nearer = (challenge.fooled[NOISE] | (challenge.noise_margin > _largest_margin(evidence, ids)))[tried]
    count, total = int(nearer.sum()), len(nearer)
    text = (
        f"{challenge.descriptions[NOISE]}: nearer to an error than the suite's best on {count} of {total} images"
    )
    return Measurement(lower_bound(count, total), f"{text} that are robust at eps {challenge.eps:.3g}")


def gains(evidence: SuiteEvidence) -> Measurement:
    """Robust accuracy on images whose margin along a path changes by more or less than the gradients add up to."""
    low, high = LEAST_GAIN, MOST_GAIN
    text = "steps along the gradient change the margin otherwise than the gradients add up to"
    return _rests_on(evidence, lambda paths: ~((paths.gains >= low) & (paths.gains <= high)), text)


def cosines(evidence: SuiteEvidence) -> Measurement:
    """Robust accuracy on images whose gradient turns away along a path."""
    text = "the gradient points elsewhere after a step or at the other end of a path"
    return _rests_on(evidence, lambda paths: ~(paths.cosines >= LEAST_COSINE), text)


def errors(evidence: SuiteEvidence) -> Measurement:
    """Robust accuracy on images whose margin in a random direction does not change as the gradients predict."""
    text = "a random step changes the margin otherwise than the gradients predict"
    return _rests_on(evidence, lambda paths: ~(paths.errors <= MOST_ERROR)[:, None], text)


def _rests_on(evidence: SuiteEvidence, useless: Callable[[Paths], np.ndarray], what: str) -> Measurement:
    """Robust accuracy on images with a useless gradient (bool n×k, any of them), as a lower bound."""
    paths, robust = evidence.paths, ~evidence.records_at(evidence.eps)["fooled"].to_numpy()
    if paths is None or not robust[paths.rows].any():
        return Measurement(None, _reason(evidence))
    tried = robust[paths.rows]
    count, total = int(useless(paths)[tried].any(1).sum()), int(tried.sum())
    share = lower_bound(count, total) * float(robust.mean())
    return Measurement(share, f"{what} for {count} of {total} images that are robust at eps {evidence.eps:.3g}")


def other_suites(evidence: SuiteEvidence) -> Measurement:
    """Robust accuracy that other suites of the same norm take away, at this radius or a smaller one.

    It is 0 if no other suite fools more images than this one, and all together take away at most `FEW`.
    """
    others = evidence.fooled_by_others
    if not len(others):
        return Measurement(None, "no other suite of this norm")
    robust = ~evidence.records_at(evidence.eps)["fooled"].to_numpy()
    missed = robust & others.any(0)
    lost, weaker = float(missed.mean()), bool((others.sum(1) > (~robust).sum()).any())
    text = f"other suites fool {int(missed.sum())} of {int(robust.sum())} images that are robust at eps"
    return Measurement(lost if weaker or lost > FEW else 0.0, f"{text} {evidence.eps:.3g}")


def _reason(evidence: SuiteEvidence) -> str:
    """Why challengers and paths have no image."""
    return NO_BALL if evidence.suite["norm"] == "patch" else NO_ROBUST_IMAGE


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

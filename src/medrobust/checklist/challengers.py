"""Checks that ask what another attack fools and the suite did not."""

from functools import partial

import numpy as np
import pandas as pd

from medrobust.checklist.base import Measured, SuiteEvidence, surely
from medrobust.checklist.challenge import BLIND, LOSS, NOISE, ONE_STEP, PLAIN, SIZE, STARTS, STEPS, TRANSFER


def missed(evidence: SuiteEvidence, challenger: str) -> Measured:
    """Points of robust accuracy that a challenger takes away beyond the suite, at the checks' radius.

    The challenger tries a sample of the images that stand; what is surely its share of them, times the
    robust accuracy, is what the whole evaluation is at least wrong by.
    """
    challenge = evidence.challenge
    if challenge is not None and challenger in challenge.skipped:
        return Measured(None, challenge.skipped[challenger])
    _, stood, asked = _standing(evidence)
    if challenge is None or not asked.any():
        return Measured(None, "no image stands")
    count, total = int((challenge.fooled[challenger] & asked).sum()), int(asked.sum())
    lost = surely(count, total) * float(stood.mean())
    proves = f"; robust accuracy is at least {lost:.3f} too high" if count else ""
    text = f"{challenge.who[challenger]}: fools {count} of {total} images that stand at eps {challenge.eps:.3g}"
    return Measured(lost, text + proves)


def noise(evidence: SuiteEvidence) -> Measured:
    """Share of standing images that noise brings nearer to a wrong answer than the suite did."""
    challenge = evidence.challenge
    table, _, asked = _standing(evidence)
    if challenge is None or not asked.any():
        return Measured(None, "no image stands")
    ids = table["id"].iloc[challenge.rows]
    ahead = (challenge.fooled[NOISE] | (challenge.noise_margin > _reached(evidence, ids)))[asked]
    count, total = int(ahead.sum()), len(ahead)
    text = f"{challenge.who[NOISE]}: nearer to an error than the suite's best on {count} of {total} images"
    return Measured(surely(count, total), f"{text} that stand at eps {challenge.eps:.3g}")


def _standing(evidence: SuiteEvidence) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The records at the challenge's radius, which images stand there, and which of the challenged ones do."""
    table = evidence.at(evidence.eps)
    stood = ~table["fooled"].to_numpy()
    rows = evidence.challenge.rows if evidence.challenge else np.zeros(0, dtype=int)
    return table, stood, stood[rows]


def _reached(evidence: SuiteEvidence, ids: pd.Series) -> np.ndarray:
    """The largest margin that any attempt reached on each image, at whatever radius."""
    tried = evidence.attempts[evidence.attempts["attack"] != "stored"]
    found: np.ndarray = tried.groupby("id")["margin"].max().loc[ids].to_numpy()
    return found


one_step = partial(missed, challenger=ONE_STEP)
plain_pgd = partial(missed, challenger=PLAIN)
logit_scale = partial(missed, challenger=LOSS)
convergence = partial(missed, challenger=STEPS)
restarts = partial(missed, challenger=STARTS)
step_size = partial(missed, challenger=SIZE)
black_box = partial(missed, challenger=BLIND)
transfer = partial(missed, challenger=TRANSFER)

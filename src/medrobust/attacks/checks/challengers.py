"""Checks that ask what another attack fools and the suite did not."""

from functools import partial

import numpy as np
import pandas as pd

from medrobust.attacks.checks.base import Measured, SuiteEvidence, surely
from medrobust.attacks.checks.challenge import BLIND, LOSS, NOISE, ONE_STEP, PLAIN, SIZE, STARTS, STEPS, TRANSFER


def missed(evidence: SuiteEvidence, challenger: str) -> Measured:
    """Points of robust accuracy that a challenger takes away beyond the suite, at the checks' radius.

    The challenger tries a sample of the images that stand; what is surely its share of them, times the
    robust accuracy, is what the whole evaluation is at least wrong by.
    """
    challenge = evidence.challenge
    if challenge is None:
        return _nothing(evidence)
    if challenger in challenge.skipped:
        return Measured(None, challenge.skipped[challenger])
    table = evidence.at(challenge.eps)
    stood = ~table["fooled"].to_numpy()
    asked = stood[challenge.rows]
    if not asked.any():
        return _nothing(evidence)
    count, total = int((challenge.fooled[challenger] & asked).sum()), int(asked.sum())
    text = f"fools {count} of {total} images that stand at eps {challenge.eps:g}"
    return Measured(surely(count, total) * float(stood.mean()), text)


def noise(evidence: SuiteEvidence) -> Measured:
    """Share of standing images that noise brings nearer to a wrong answer than the suite did."""
    challenge = evidence.challenge
    if challenge is None:
        return _nothing(evidence)
    table = evidence.at(challenge.eps).iloc[challenge.rows]
    stood = ~table["fooled"].to_numpy()
    if not stood.any():
        return _nothing(evidence)
    ahead = (challenge.fooled[NOISE] | (challenge.noise_margin > _reached(evidence, table["id"])))[stood]
    text = f"noise comes nearer than the suite on {int(ahead.sum())} of {len(ahead)} images that stand"
    return Measured(surely(int(ahead.sum()), len(ahead)), f"{text} at eps {challenge.eps:g}")


def _reached(evidence: SuiteEvidence, ids: pd.Series) -> np.ndarray:
    """The largest margin that any attempt reached on each image, at whatever radius."""
    tried = evidence.attempts[evidence.attempts["attack"] != "stored"]
    found: np.ndarray = tried.groupby("id")["margin"].max().loc[ids].to_numpy()
    return found


def _nothing(evidence: SuiteEvidence) -> Measured:
    norm = evidence.suite["norm"]
    return Measured(None, f"no challengers for {norm}" if norm != "Linf" else "no image stands")


one_step = partial(missed, challenger=ONE_STEP)
plain_pgd = partial(missed, challenger=PLAIN)
logit_scale = partial(missed, challenger=LOSS)
convergence = partial(missed, challenger=STEPS)
restarts = partial(missed, challenger=STARTS)
step_size = partial(missed, challenger=SIZE)
black_box = partial(missed, challenger=BLIND)
transfer = partial(missed, challenger=TRANSFER)

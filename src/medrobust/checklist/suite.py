"""Checks of an evaluation: are its attacks strong enough, and are its records consistent?"""

from typing import Any

import numpy as np
import pandas as pd

from medrobust.attacks.base import Attack
from medrobust.attacks.engine.evaluate import build_attack, named_attacks
from medrobust.attacks.tolerance import TOLERANCE
from medrobust.checklist.base import Measurement, SuiteEvidence
from medrobust.core.intervals import FEW_PATIENTS
from medrobust.core.rates import share_ci

#: Half the width of an interval above which a number is too imprecise. A rate of one half from 40 independent
#: answers (`FEW_PATIENTS` patients in each of four classes) has about this half-width.
HALF_WIDTH = 0.15
#: Reason for no measurement of how far failed attacks went (see `_failed_attempts`).
NO_FAILED_ATTEMPT = "no gradient attack failed in a Linf ball after all its steps"


def reach(evidence: SuiteEvidence) -> Measurement:
    """Share of the ball's width, 2·eps, that alpha·steps does not cover; the largest over the attacks.

    An attack that starts in the middle needs half of the width, one that starts anywhere in the ball needs all of
    it. The share is 0 for an attack that has as much as it needs, and above 0.5 for one that cannot get from the
    middle to the border.
    """
    missing: dict[str, float] = {}
    for attack in _attacks(evidence):
        size, steps = getattr(attack, "step_size", None), getattr(attack, "steps", 0)
        if size is None or attack.eps == 0:
            continue
        length = float(size) * steps / float(getattr(attack, "reach", attack.eps))
        enough = length >= (2 if getattr(attack, "random_start", False) else 1) * (1 - TOLERANCE)
        unit = "of the range [0, 1]" if attack.norm == "patch" else "eps"
        missing[f"{type(attack).__name__} moves at most {length:.3g} {unit}"] = 0.0 if enough else 1 - length / 2
    if not missing:
        return Measurement(0.0, "no attack has a fixed step size")
    worst = max(missing, key=lambda name: missing[name])
    return Measurement(missing[worst], worst)


def unseen_attack(evidence: SuiteEvidence) -> Measurement:
    """1 if the model was trained on attacked images and all attacks maximise the cross-entropy, like training."""
    if not evidence.adversarial:
        return Measurement(0.0, "the model was not trained on attacks")
    losses = {str(getattr(attack, "loss", type(attack).__name__)) for attack in _attacks(evidence)}
    others = sorted(losses - {"ce"})
    text = f"losses beside cross-entropy: {', '.join(others)}" if others else "all maximise the cross-entropy"
    return Measurement(float(not others), text)


def targets(evidence: SuiteEvidence) -> Measurement:
    """Wrong classes that no attack targets; 0 if no attack searches over targets."""
    tried = [int(attack.targets) for attack in _attacks(evidence) if hasattr(attack, "targets")]
    wrong = len(evidence.subset.classes) - 1
    left = max(wrong - max(tried), 0) if tried else 0
    text = f"{left} of {wrong} wrong classes are never tried" if tried else "no attack searches over targets"
    return Measurement(float(left), text)


def validity(evidence: SuiteEvidence) -> Measurement:
    """Attempts outside the ball by attacks that respect it, and attempts with a number that is not finite."""
    table = _attempts(evidence)
    bound = {name for name, attack in named_attacks(evidence.suite) if attack.respects_ball}
    outside = table["distance"] > table["eps"] * (1 + TOLERANCE) + 1e-7
    bad = ~np.isfinite(table["distance"]) | ~np.isfinite(table["margin"]) | (outside & table["attack"].isin(bound))
    return Measurement(float(bad.sum()), f"{int(bad.sum())} of {len(table)} attempts are invalid")


def below_clean(evidence: SuiteEvidence) -> Measurement:
    """Images that count as robust at some radius although they are misclassified without an attack."""
    table = evidence.records
    bad = table[(table["clean_pred"] != table["label"]) & ~table["fooled"]]["id"].nunique()
    return Measurement(float(bad), f"{bad} images are robust but misclassified without an attack")


def worst_case(evidence: SuiteEvidence) -> Measurement:
    """Images whose record at some radius differs from the worst case over all attempts, computed independently.

    An image is fooled at a radius if it is misclassified without an attack, or if an attempt within that radius
    fooled it.
    """
    tried = evidence.attempts[evidence.attempts["attack"] != "stored"]
    nearest = tried["distance"].where(tried["fooled"], np.inf).groupby(tried["id"]).min()
    table = evidence.records
    fooled = nearest.loc[table["id"]].to_numpy() <= table["eps"].to_numpy() * (1 + TOLERANCE) + 1e-7
    images = table["id"][fooled != table["fooled"].to_numpy()].nunique()
    return Measurement(float(images), f"the records of {images} images are not the worst case")


def budget(evidence: SuiteEvidence) -> Measurement:
    """Share of the radius that failed attacks did not move from their start; the median over images."""
    failed = _failed_attempts(evidence)
    if not len(failed):
        return Measurement(None, NO_FAILED_ATTEMPT)
    moved = float((failed["displacement"] / failed["eps"]).groupby(failed["id"]).max().median())
    return Measurement(1 - moved, f"failed attacks ended {moved:.2f} eps from their start (median over images)")


def saturation(evidence: SuiteEvidence) -> Measurement:
    """Share of pixels that failed attacks left inside the ball; the median over images."""
    failed = _failed_attempts(evidence)
    if not len(failed):
        return Measurement(None, NO_FAILED_ATTEMPT)
    share = float(failed["saturation"].groupby(failed["id"]).max().median())
    return Measurement(1 - share, f"failed attacks moved {share:.0%} of the pixels to the border of the ball")


def sample_size(evidence: SuiteEvidence) -> Measurement:
    """The larger of two factors, above 1 if too imprecise.

    The first is half the width of the interval at the checks' radius over `HALF_WIDTH`, the second `FEW_PATIENTS`
    over the fewest patients of a class.
    """
    table, subset = evidence.records_at(evidence.eps), evidence.subset
    right, labels = ~table["fooled"].to_numpy(dtype=bool), table["label"].to_numpy()
    low, high = share_ci(right, labels, table["patient"].to_numpy(), evidence.report.confidence)
    half = (high - low) / 2
    fewest = min(len(np.unique(subset.patients[subset.labels == k])) for k in range(len(subset.classes)))
    text = f"{len(subset)} images, interval ±{half:.3f}, fewest patients of a class: {fewest}"
    return Measurement(max(half / HALF_WIDTH, FEW_PATIENTS / max(fewest, 1)), text)


def _attacks(evidence: SuiteEvidence) -> list[Attack]:
    entries: list[dict[str, Any]] = evidence.suite["attacks"]
    return [build_attack(entry, evidence.eps, evidence.suite["norm"]) for entry in entries]


def _attempts(evidence: SuiteEvidence) -> pd.DataFrame:
    """The attempts of the suite's attacks, without the records of clean and of stored images."""
    return evidence.attempts[~evidence.attempts["attack"].isin(["natural", "stored"])]


def _failed_attempts(evidence: SuiteEvidence) -> pd.DataFrame:
    """Failed attempts of attacks along gradients in a Linf ball. No rows for L2 suites and with `give_up`.

    In an L2 ball, pixels at 0 and 1 cannot move outwards, so that sound attacks do not reach the border either.
    With `give_up` a failed attempt ends early, so that its length says nothing about the attack. Attacks on a
    region or with a target are left out, because they may not or need not use the whole budget everywhere.
    """
    table = _attempts(evidence)
    if evidence.suite["norm"] != "Linf" or evidence.suite.get("give_up"):
        return table[:0]
    follows = {name for name, attack in named_attacks(evidence.suite) if _follows_gradients(attack)}
    return table[~table["fooled"] & table["attack"].isin(follows) & (table["eps"] > 0)]


def _follows_gradients(attack: Attack) -> bool:
    """Whether the attack steps along gradients, has no target and may change every pixel."""
    free = getattr(attack, "target", None) is None and getattr(attack, "mask", None) is None
    return free and hasattr(attack, "step_size")

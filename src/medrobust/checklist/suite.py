"""Checks of an evaluation: could its attacks do what they claim, and do its records hold together?"""

from typing import Any

import numpy as np
import pandas as pd

from medrobust.attacks.base import TOLERANCE, Attack
from medrobust.attacks.engine.evaluate import build_attack, named_attacks
from medrobust.checklist.base import Measured, SuiteEvidence
from medrobust.core import intervals, metrics

#: Half the widest interval above which a number is too weak to compare.
HALF_WIDTH = 0.05
#: Why nothing is said of how far attacks go (see `_failed`).
NO_WALK = "no attack along gradients failed in a Linf ball with all its steps"


def reach(evidence: SuiteEvidence) -> Measured:
    """Share of the ball's width, 2·eps, that alpha·steps of the attack which falls shortest does not walk.

    An attack that starts in the middle needs half of the width, one that starts anywhere in the ball all of it: 0
    where it has that much, above 0.5 where it cannot even get from the middle to the border.
    """
    missing: dict[str, float] = {}
    for attack in _attacks(evidence):
        size, steps = getattr(attack, "step_size", None), getattr(attack, "steps", 0)
        if size is None or attack.eps == 0:
            continue
        walk = float(size) * steps / attack.eps
        enough = walk >= (2 if getattr(attack, "random_start", False) else 1) * (1 - TOLERANCE)
        missing[f"{type(attack).__name__} walks {walk:.3g} times eps"] = 0.0 if enough else 1 - walk / 2
    if not missing:
        return Measured(0.0, "no attack of fixed steps")
    worst = max(missing, key=lambda name: missing[name])
    return Measured(missing[worst], worst)


def unseen(evidence: SuiteEvidence) -> Measured:
    """1 if every attack climbs the cross-entropy, as training does, and the model was trained on attacks."""
    if not evidence.adversarial:
        return Measured(0.0, "the model was trained on no attack")
    losses = {str(getattr(attack, "loss", type(attack).__name__)) for attack in _attacks(evidence)}
    others = sorted(losses - {"ce"})
    text = f"beside cross-entropy the suite has {', '.join(others)}" if others else "all climb the cross-entropy"
    return Measured(float(not others), text)


def targets(evidence: SuiteEvidence) -> Measured:
    """Wrong classes that the suite's most thorough search over targets never tries; 0 without such a search."""
    tried = [int(attack.targets) for attack in _attacks(evidence) if hasattr(attack, "targets")]
    wrong = len(evidence.subset.classes) - 1
    left = max(wrong - max(tried), 0) if tried else 0
    return Measured(
        float(left), f"{left} of {wrong} wrong classes are never tried" if tried else "none is targeted"
    )


def valid(evidence: SuiteEvidence) -> Measured:
    """Successes of a bound attack outside its ball, and attempts with a number that is not finite."""
    table = _attempts(evidence)
    bound = {name for name, attack in named_attacks(evidence.suite) if attack.respects_ball}
    outside = table["distance"] > table["eps"] * (1 + TOLERANCE) + 1e-7
    bad = ~np.isfinite(table["distance"]) | ~np.isfinite(table["margin"]) | (outside & table["attack"].isin(bound))
    return Measured(float(bad.sum()), f"{int(bad.sum())} of {len(table)} attempts are invalid")


def below_clean(evidence: SuiteEvidence) -> Measured:
    """Images that count as robust at some radius although the model gets them wrong without an attack."""
    table = evidence.records
    bad = table[(table["clean_pred"] != table["label"]) & ~table["fooled"]]["id"].nunique()
    return Measured(float(bad), f"{bad} images are robust and naturally wrong")


def worst_case(evidence: SuiteEvidence) -> Measured:
    """Images whose row at some radius is not the worst over all attempts, computed here once more.

    An image is fooled at a radius if it is wrong without an attack or if any attempt fooled it no further away.
    """
    tried = evidence.attempts[evidence.attempts["attack"] != "stored"]
    nearest = tried["distance"].where(tried["fooled"], np.inf).groupby(tried["id"]).min()
    table = evidence.records
    fooled = nearest.loc[table["id"]].to_numpy() <= table["eps"].to_numpy() * (1 + TOLERANCE) + 1e-7
    images = table["id"][fooled != table["fooled"].to_numpy()].nunique()
    return Measured(float(images), f"{images} images are not their worst case")


def budget(evidence: SuiteEvidence) -> Measured:
    """Share of the radius that attacks did not go from their start; the median over failed images."""
    failed = _failed(evidence)
    if not len(failed):
        return Measured(None, NO_WALK)
    moved = float((failed["displacement"] / failed["eps"]).groupby(failed["id"]).max().median())
    return Measured(1 - moved, f"attacks that failed ended {moved:.2f} eps from their start (median image)")


def saturation(evidence: SuiteEvidence) -> Measured:
    """Share of the pixels that stayed inside the ball; the median over failed images."""
    failed = _failed(evidence)
    if not len(failed):
        return Measured(None, NO_WALK)
    share = float(failed["saturation"].groupby(failed["id"]).max().median())
    return Measured(1 - share, f"attacks that failed left {share:.0%} of the pixels at the border of the ball")


def sample_size(evidence: SuiteEvidence) -> Measured:
    """How many times too wide the interval at the checks' radius is, or too few the patients of a class."""
    table, subset = evidence.at(evidence.eps), evidence.subset
    labels = table["label"].to_numpy()
    preds = np.where(table["fooled"], table["adv_pred"], table["label"]).astype(int)
    low, high = intervals.bootstrap_ci(
        labels, preds, table["patient"].to_numpy(), len(subset.classes), metrics.accuracy,
        resamples=evidence.report.bootstrap, confidence=evidence.report.confidence,
    )  # fmt: skip
    # Where all images of each class agree, resampling has no width, and the exact bound speaks.
    patients = len(np.unique(subset.patients))
    half = ((high - low) or intervals.unanimous_margin(patients, evidence.report.confidence)) / 2
    fewest = min(len(np.unique(subset.patients[subset.labels == k])) for k in range(len(subset.classes)))
    text = f"{len(subset)} images, interval ±{half:.3f}, fewest patients of a class: {fewest}"
    return Measured(max(half / HALF_WIDTH, intervals.FEW_PATIENTS / max(fewest, 1)), text)


def _attacks(evidence: SuiteEvidence) -> list[Attack]:
    entries: list[dict[str, Any]] = evidence.suite["attacks"]
    return [build_attack(entry, evidence.eps, evidence.suite["norm"]) for entry in entries]


def _attempts(evidence: SuiteEvidence) -> pd.DataFrame:
    """What the suite's attacks tried, without the clean and the stored images."""
    return evidence.attempts[~evidence.attempts["attack"].isin(["natural", "stored"])]


def _failed(evidence: SuiteEvidence) -> pd.DataFrame:
    """Attempts in a Linf ball of attacks that step along a gradient, on images that stand at their radius.

    In an L2 ball black and white pixels, which cannot move outwards, take length away from sound attacks too.
    Attacks on a region or for a target are left out: they may not, or need not, spend the budget everywhere.
    So are suites with `give_up`: how far a failed attempt came there says when it ended, not how it walks.
    """
    table = _attempts(evidence)
    if evidence.suite["norm"] != "Linf" or evidence.suite.get("give_up"):
        return table[:0]
    walks = {name for name, attack in named_attacks(evidence.suite) if _follows_gradients(attack)}
    return table[~table["fooled"] & table["attack"].isin(walks) & (table["eps"] > 0)]


def _follows_gradients(attack: Attack) -> bool:
    """Whether the attack steps along gradients, towards any error, by changing any pixel."""
    free = getattr(attack, "target", None) is None and getattr(attack, "mask", None) is None
    return free and bool(getattr(attack, "gradient", hasattr(attack, "step_size")))

"""A small run to look at single images of: two models, one with a guard, and two suites."""

from functools import cache
from typing import Any

import numpy as np

from medrobust.cases.collect import ShownModel, collect_cases
from medrobust.core.params.detection import DetectParams
from medrobust.data.store import Subset
from medrobust.detection.fitting import Splits, fit_guard
from medrobust.models.classifier import Classifier
from medrobust.models.ensemble import EnsembleClassifier
from tests.params import default_block
from tests.small import fit, make_classifier, make_subset

SEED, COUNT = 3, 7


def suite(name: str, *entries: dict[str, Any], norm: str = "Linf", eps: tuple[float, ...] = (0.02, 0.1)) -> Any:
    """A resolved suite; an entry is an attack's hyper-parameters with its name."""
    attacks = [{"name": entry.pop("name"), "hyperparameters": entry} for entry in entries]
    return {"name": name, "norm": norm, "eps": list(eps), "attacks": attacks, "code": {}}


PGD = suite("pgd", {"name": "pgd", "steps": 4}, {"name": "pgd", "steps": 4, "loss": "margin"})
L2 = suite("l2", {"name": "pgd_l2", "steps": 3, "random_start": False}, norm="L2", eps=(0.2, 0.4))


@cache
def splits() -> Splits:
    """Train, val and test."""
    return Splits(make_subset("train", 30, 0), make_subset("val", 12, 1), make_subset("test", 9, 2), seed=SEED)


@cache
def trained(steps: int = 30) -> Classifier:
    """A classifier after few steps, so that some answers are wrong; in eval mode."""
    classifier = make_classifier()
    fit(classifier, splits().train, steps=steps)
    return classifier


def shown_models() -> list[ShownModel]:
    """The classifier with its guard, and an ensemble, which has no single network."""
    params = default_block(DetectParams, "detect", detectors={"gmm": {}, "kde": {}}, seen=None)
    guard, _ = fit_guard(trained(), splits(), {"suites": {}}, params, "w")
    both = EnsembleClassifier([trained(), trained(steps=60)], [0.2, 0.8]).eval()
    return [ShownModel("one-adv", trained(), guard), ShownModel("ensemble", both)]


@cache
def cases() -> dict[str, Any]:
    """What the stage writes, without the hashes."""
    return collect(splits().test)


def shown() -> Subset:
    """The test images of `cases`."""
    rows = [case["image"] for case in cases()["cases"]]
    return splits().test.take(np.flatnonzero(np.isin(splits().test.rows, rows)))


def collect(test: Subset) -> dict[str, Any]:
    """The cases of other test images."""
    return collect_cases(
        shown_models(), test, splits().train, [PGD, L2], count=COUNT, seed=SEED, cells=4, ordered=False
    )

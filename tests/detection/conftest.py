"""A small classifier of a small grey data set, and detectors to try on it."""

from typing import Any

import pytest

from medrobust.detection.features import DeepFeatures, Features, extract_features
from medrobust.detection.fitting import Splits
from medrobust.models.classifier import Classifier
from tests.small import fit, make_classifier, make_subset


@pytest.fixture(scope="session")
def splits() -> Splits:
    """Train, val and test of 30, 12 and 9 patients."""
    return Splits(make_subset("train", 30, 0), make_subset("val", 12, 1), make_subset("test", 9, 2), seed=5)


@pytest.fixture(scope="session")
def model(splits: Splits) -> Classifier:
    """A classifier trained on the training images, in eval mode."""
    classifier = make_classifier()
    fit(classifier, splits.train, steps=80)
    return classifier


@pytest.fixture(scope="session")
def deep_features(model: Classifier, splits: Splits) -> dict[str, Features]:
    """Deep features of train, val and test, by split."""
    parts = {name: getattr(splits, name) for name in ("train", "val", "test")}
    return {
        name: extract_features(model, [DeepFeatures()], part, 5)[DeepFeatures()] for name, part in parts.items()
    }


@pytest.fixture(scope="session")
def suite() -> dict[str, Any]:
    """A resolved suite of one attack."""
    entry = {"name": "pgd", "hyperparameters": {"steps": 5}}
    return {"name": "pgd", "norm": "Linf", "eps": [0.1], "attacks": [entry], "code": {}}

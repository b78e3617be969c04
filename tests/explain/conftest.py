"""A small trained classifier with feature maps, its test images, and a suite's evaluation of it."""

from typing import Any

import pandas as pd
import pytest
from torch import nn

from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.data.store import Subset
from medrobust.explain.explained_model import ExplainedModel
from medrobust.models.classifier import Classifier
from medrobust.models.predict import log_probabilities, predictions_table
from tests.small import fit, make_classifier, make_subset


@pytest.fixture(scope="session")
def model() -> Classifier:
    """Trained for few steps, so that some predictions are wrong; in eval mode."""
    classifier = make_classifier()
    fit(classifier, make_subset("train", 30, 0), steps=30)
    return classifier


@pytest.fixture(scope="session")
def suite() -> dict[str, Any]:
    """A resolved suite of two attacks."""
    entries = [{"steps": 4}, {"steps": 4, "loss": "margin"}]
    attacks = [{"name": "pgd", "hyperparameters": entry} for entry in entries]
    return {"name": "pgd", "norm": "Linf", "eps": [0.02, 0.1], "attacks": attacks, "code": {}}


@pytest.fixture(scope="session")
def explained(model: Classifier, suite: dict[str, Any]) -> ExplainedModel:
    """The model, nine test patients, and the suite's evaluation."""
    return make_explained(model, make_subset("test", 9, 2), suite)


def make_explained(model: nn.Module, test: Subset, suite: dict[str, Any]) -> ExplainedModel:
    """A model whose evaluation is run here."""
    return ExplainedModel(
        model=model, test=test, train=make_subset("train", 6, 0), suite=suite, cells=4, seed=3,
        predictions=predictions_table(test, "test", log_probabilities(model, test)),
        attempts=attack_suite(model, test, suite, seed=3),
    )  # fmt: skip


@pytest.fixture(scope="session")
def attempts(explained: ExplainedModel) -> pd.DataFrame:
    """The suite's records."""
    return explained.attempts

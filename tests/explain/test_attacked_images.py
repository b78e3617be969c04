"""The attacked images of explanations are those of the evaluation, taken to the last step."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from medrobust.attacks.base import margin
from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.projection import distance
from medrobust.explain.attacked_images import noisy_images
from medrobust.explain.explained_model import ExplainedModel


@pytest.mark.parametrize("eps", [0.02, 0.1])
def test_what_the_suite_fooled_is_fooled_here_and_stays_in_the_ball(explained: ExplainedModel, eps: float) -> None:
    test = explained.test
    clean, found = test.batch(range(len(test))), explained.attacked(test, eps)
    assert distance(found, clean).max() <= eps * (1 + 1e-5)
    worst = worst_case(explained.attempts, explained.suite["eps"])
    fooled = worst[worst["eps"] == eps].set_index("id").loc[test.ids, "fooled"].to_numpy(dtype=bool)
    natural = explained.predictions["pred"].to_numpy() != test.labels
    with torch.no_grad():
        wrong = (margin(explained.model(found), test.targets(range(len(test)))) > 0).numpy()
    assert (fooled & ~natural).any(), "else this shows nothing"
    assert wrong[fooled & ~natural].all()


def test_the_attack_continues_after_its_first_success(explained: ExplainedModel) -> None:
    test, eps = explained.test, 0.1
    labels = test.targets(range(len(test)))
    worst = worst_case(explained.attempts, explained.suite["eps"])
    worst = worst[(worst["eps"] == eps)].set_index("id").loc[test.ids]
    rows = np.flatnonzero(worst["fooled"] & (worst["fooled_by"] != "natural"))
    with torch.no_grad():
        margins = margin(explained.model(explained.attacked(test, eps)), labels)[rows]
    assert margins.mean() > worst["margin"].to_numpy()[rows].mean()


def test_the_attack_on_an_image_does_not_depend_on_the_others(explained: ExplainedModel) -> None:
    everyone = explained.attacked(explained.test, 0.1)
    alone = explained.attacked(explained.test.take(np.array([5])), 0.1)
    assert torch.equal(everyone[5:6], alone)


def test_no_success_of_an_earlier_step_is_lost(explained: ExplainedModel) -> None:
    """With a step that overshoots, the last iterate may fail although an earlier one succeeded."""
    hyper = {"steps": 3, "alpha": 0.2, "random_start": False}
    entry: dict[str, Any] = {**explained.suite["attacks"][0], "hyperparameters": hyper}
    suite = {**explained.suite, "eps": [0.1], "attacks": [entry]}
    facts = {"attack": "pgd", "eps": 0.1, "fooled": True, "margin": 0.1, "id": explained.test.ids}
    # The record claims a success on all images: those fooled at any step must be fooled in the result.
    other = replace(explained, suite=suite, attempts=pd.DataFrame(facts))
    test = explained.test
    labels = test.targets(range(len(test)))
    stop = {**suite, "attacks": [{**entry, "hyperparameters": {**hyper, "stop_when_fooled": True}}]}
    first = replace(other, suite=stop, attempts=pd.DataFrame({**facts, "fooled": False}))
    with torch.no_grad():
        ends = margin(explained.model(other.attacked(test, 0.1)), labels) > 0
        plain = margin(explained.model(first.attacked(test, 0.1)), labels) > 0
    assert (ends | ~plain).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_noise_is_as_large_as_the_attack(explained: ExplainedModel, norm: Any) -> None:
    clean = explained.test.batch(range(len(explained.test)))
    away = distance(noisy_images(explained.test, 0.05, norm, 1), clean, norm)
    assert away.max() <= 0.05 * (1 + 1e-5)
    assert away.min() > 0.04
    assert not torch.equal(
        noisy_images(explained.test, 0.05, norm, 1), noisy_images(explained.test, 0.05, norm, 2)
    )

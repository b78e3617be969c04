"""The cost of attacked images is that of an attack that looks for costly classes, not for the nearest one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medrobust.attacks.projection import distance
from medrobust.core.seeds import image_seeds
from medrobust.detection.attacked_images import SuiteAttack, changed_images
from medrobust.detection.cost_tables import CleanAndAttacked
from medrobust.detection.costly_images import cost_attack, costliest_images
from medrobust.detection.fitting import Splits
from medrobust.detection.measures import ScoredImages
from medrobust.detection.risk import Prices, costliest, error_costs
from medrobust.models.classifier import Classifier

EPS = 0.12
GRADES = error_costs(3, True, under=2, over=1)


def made(
    model: Classifier,
    splits: Splits,
    suite: dict[str, Any],
    errors: np.ndarray,
    norm: str = "Linf",
    eps: float = EPS,
) -> tuple[Tensor, Tensor]:
    """Test images under the suite's attack, and under its costliest form."""
    suite = {**suite, "norm": norm}
    found = changed_images(model, splits.test, SuiteAttack(suite, eps), 5, "")
    return found, costliest_images(model, splits.test, found, cost_attack(suite, eps), errors, 5, "")


def preds(model: Classifier, images: Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(images).argmax(1).numpy()


@pytest.mark.parametrize(("norm", "eps"), [("Linf", EPS), ("L2", 1.5)])
def test_images_of_the_suite_become_costlier_and_stay_in_its_ball(
    norm: Any, eps: float, model: Classifier, splits: Splits, suite: dict[str, Any]
) -> None:
    entry = {"name": "iterative", "hyperparameters": {"steps": 5}}
    nearest, costly = made(model, splits, {**suite, "attacks": [entry]}, GRADES, norm, eps)
    labels = splits.test.labels
    before, after = (GRADES[labels, preds(model, images)] for images in (nearest, costly))
    assert (after >= before).all()
    assert before.sum() < after.sum() == GRADES.max(1)[labels].sum(), "a ball this large reaches every class"
    assert np.array_equal(after > 0, before > 0), "as many images are fooled as before"
    clean = splits.test.batch(range(len(labels)))
    assert distance(costly, clean, norm).max() <= eps * (1 + 1e-5)
    assert costly.min() >= 0
    assert costly.max() <= 1


def test_each_image_reaches_the_costliest_class_that_can_be_reached(
    model: Classifier, splits: Splits, suite: dict[str, Any]
) -> None:
    """Tried one by one: every class is the target of its own attack."""
    nearest, costly = made(model, splits, suite, GRADES)
    labels, seeds = splits.test.targets(range(len(splits.test))), image_seeds(splits.test.ids, 5)
    images = splits.test.batch(range(len(labels)))
    best = GRADES[labels, preds(model, nearest)]
    for target in range(3):
        attack = replace(cost_attack(suite, EPS), target=target)
        reached = preds(model, attack(model, images, labels, seeds=seeds))
        hit = (reached == target) & (preds(model, nearest) != labels.numpy())
        best = np.where(hit, np.maximum(best, GRADES[labels, target]), best)
    assert (GRADES[labels, preds(model, costly)] >= best).all()


def test_if_all_errors_cost_the_same_nothing_is_attacked_again(
    model: Classifier, splits: Splits, suite: dict[str, Any]
) -> None:
    nearest, costly = made(model, splits, suite, error_costs(3, False, 1, 1))
    assert torch.equal(nearest, costly)


def test_a_suite_on_a_region_keeps_to_it(model: Classifier, splits: Splits, suite: dict[str, Any]) -> None:
    masks = np.zeros(splits.test.store_images.shape[:3], dtype=bool)
    masks[:, :6] = True
    outlined = replace(splits.test, store_masks=masks)
    entry = {"name": "iterative", "hyperparameters": {"steps": 5, "mask": "outlined"}}
    suite = {**suite, "attacks": [entry]}
    found = changed_images(model, outlined, SuiteAttack(suite, 0.4), 5, "")
    costly = costliest_images(model, outlined, found, cost_attack(suite, 0.4), GRADES, 5, "")
    change = costly - outlined.batch(range(len(outlined)))
    assert not torch.equal(found, costly)
    assert not change[:, :, 6:].any()


def version(answers: list[int], scores: list[float]) -> ScoredImages:
    labels = np.array([2, 2, 0])
    return ScoredImages(labels, np.eye(3)[answers], np.array(["p", "q", "r"]), np.array(scores))


def test_the_costliest_accepted_version_counts() -> None:
    prices = Prices(GRADES, reject=0.5, reject_attacked=0.1)
    near, far = version([1, 1, 1], [1.0, 1.0, 1.0]), version([0, 0, 0], [3.0, 0.5, 1.0])
    strict, lax = (costliest([near, far], threshold, prices) for threshold in (2.0, np.inf))
    assert strict.preds.tolist() == [1, 0, 1]
    assert lax.preds.tolist() == [0, 0, 1]
    assert strict.scores.tolist() == [1.0, 0.5, 1.0]
    nobody = costliest([near, far], -1.0, prices)
    assert nobody.scores.tolist() == [1.0, 0.5, 1.0], "rejected ones cost the same: the least suspicious"
    clean = version([2, 2, 0], [0.0, 0.0, 0.0])
    with_both = CleanAndAttacked(clean, near, (far,))
    thresholds = np.array([-1.0, 2.0, np.inf])
    _, paid, _ = with_both.costs(thresholds, prices, "image")
    assert paid == pytest.approx([0.1, (2 + 4 + 1) / 3, (4 + 4 + 1) / 3])
    _, alone, _ = CleanAndAttacked(clean, near).costs(thresholds, prices, "image")
    assert alone == pytest.approx([0.1, (2 + 2 + 1) / 3, (2 + 2 + 1) / 3])

"""Adaptive attacks: less suspicious than an unaware attack, inside the ball, independent of the batch."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medrobust.attacks.base import Attack, margin
from medrobust.core.seeds import image_seeds
from medrobust.detection.adaptive.attacks import (
    InDistribution,
    Joint,
    Matching,
    OffAnatomy,
    Orthogonal,
    orthogonal_part,
)
from medrobust.detection.attacked_images import SuiteAttack, changed_images
from medrobust.detection.detectors.gmm import ClasswiseMixture
from medrobust.detection.features import DeepFeatures, Features
from medrobust.detection.fitting import Splits
from medrobust.detection.guard import FittedDetector
from medrobust.detection.measures import ScoredImages, least_suspicious, successful, summarise_evasion
from medrobust.models.classifier import Classifier

EPS = 0.12
COUNT = 24


@pytest.fixture(scope="module")
def detector(deep_features: dict[str, Features], splits: Splits) -> FittedDetector:
    train, val = deep_features["train"], deep_features["val"]
    mixture = ClasswiseMixture().fit(train, torch.from_numpy(splits.train.labels), held_out=val)
    scores = mixture.score(val)
    return FittedDetector(mixture, float(scores.quantile(0.9)), float(scores.mean()), float(scores.std()))


@pytest.fixture(scope="module")
def limit(detector: FittedDetector) -> float:
    """The standardised score that a tenth of the validation images exceeds."""
    return detector.standardised_threshold


@pytest.fixture(params=["joint", "orthogonal", "matching", "ind", "ood"])
def attack(
    request: pytest.FixtureRequest, detector: FittedDetector, limit: float, deep_features: dict[str, Features]
) -> Attack:
    made: dict[str, Attack] = {
        "joint": Joint(eps=EPS, steps=8, searches=2, detector=detector),
        "orthogonal": Orthogonal(eps=EPS, steps=8, detector=detector),
        "matching": Matching(eps=EPS, steps=8, guides=deep_features["train"]),
        "ind": InDistribution(eps=EPS, steps=8, detector=detector, limit=limit),
        "ood": OffAnatomy(steps=8),
    }
    return made[request.param]


def run(attack: Attack, model: Classifier, splits: Splits, rows: Any = range(COUNT)) -> Tensor:
    seeds = image_seeds(splits.test.ids, 5)[list(rows)]
    return attack(model, splits.test.batch(rows), splits.test.targets(rows), seeds=seeds)


def look(model: Classifier, detector: FittedDetector, images: Tensor, splits: Splits) -> tuple[Tensor, Tensor]:
    """Which of the first images are wrong, and their standardised scores."""
    with torch.no_grad():
        logits, scores = detector.logits_and_score(model, images, image_seeds(splits.test.ids, 5)[: len(images)])
    return margin(logits, splits.test.targets(range(len(images)))) > 0, scores


def test_the_ball_and_the_range_hold(attack: Attack, model: Classifier, splits: Splits) -> None:
    images, found = splits.test.batch(range(COUNT)), run(attack, model, splits)
    assert (found - images).abs().max() <= attack.eps + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    assert (found != images).any()


@pytest.mark.parametrize("kind", [Joint, Orthogonal])
def test_an_l2_ball_is_kept_and_used(
    kind: type[Joint] | type[Orthogonal], model: Classifier, splits: Splits, detector: FittedDetector
) -> None:
    images = splits.test.batch(range(COUNT))
    found = run(kind(eps=1.0, norm="L2", steps=10, detector=detector), model, splits)
    lengths = (found - images).flatten(1).norm(dim=1)
    assert lengths.max() <= 1 + 1e-5
    assert lengths.median() > 0.5
    assert look(model, detector, found, splits)[0].any()


def test_results_do_not_depend_on_batch_mates(attack: Attack, model: Classifier, splits: Splits) -> None:
    together = run(attack, model, splits)
    alone = torch.cat([run(attack, model, splits, [row]) for row in range(6)])
    same = ((alone - together[:6]).abs().flatten(1).amax(1) < 1e-4).float().mean()
    assert same >= 5 / 6  # rounding by batch may flip the sign of a gradient near zero


def test_the_model_is_left_unchanged(attack: Attack, model: Classifier, splits: Splits) -> None:
    model.zero_grad()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(attack, model, splits)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["joint", "orthogonal"])
def test_an_aware_attacker_is_less_suspicious_than_an_unaware_one(
    kind: str, model: Classifier, splits: Splits, detector: FittedDetector, suite: dict[str, Any]
) -> None:
    hyperparameters = {"steps": 10, "stop_when_fooled": False}
    full = {**suite, "attacks": [{**suite["attacks"][0], "hyperparameters": hyperparameters}]}
    unaware = changed_images(model, splits.test, SuiteAttack(full, EPS), 5, "")
    kinds: dict[str, Attack] = {
        "joint": Joint(eps=EPS, steps=20, searches=4, detector=detector),
        "orthogonal": Orthogonal(eps=EPS, steps=40, detector=detector),
    }
    aware = run(kinds[kind], model, splits, range(len(splits.test)))
    (wrong, scores), (fooled, less) = (look(model, detector, images, splits) for images in (unaware, aware))
    assert fooled.sum() >= 0.8 * wrong.sum()
    both = wrong & fooled
    assert both.sum() >= 5
    assert less[both].median() < scores[both].median() - 0.5


def test_an_aware_attacker_of_costs_reaches_costly_classes(
    model: Classifier, splits: Splits, detector: FittedDetector
) -> None:
    """Images that reach the costliest class are returned where there are any, and are less suspicious for it."""
    costs = [[0.0, 1.0, 2.0], [2.0, 0.0, 1.0], [4.0, 2.0, 0.0]]
    labels, prices = splits.test.targets(range(len(splits.test))), torch.tensor(costs)
    plain = Joint(eps=EPS, steps=20, searches=4, detector=detector)
    paid = []
    for attack in (plain, replace(plain, target="most_costly", costs=costs)):
        with torch.no_grad():
            paid.append(prices[labels, model(run(attack, model, splits, range(len(labels)))).argmax(1)])
    assert paid[1].sum() > 1.2 * paid[0].sum()
    assert (paid[1] == prices.amax(1)[labels]).float().mean() > 0.5


def test_ind_returns_only_images_that_stay_as_likely_as_clean_ones(
    model: Classifier, splits: Splits, detector: FittedDetector, limit: float
) -> None:
    attack = InDistribution(eps=EPS, steps=20, detector=detector, limit=limit)
    rows = range(len(splits.test))
    found = run(attack, model, splits, rows)
    wrong, scores = look(model, detector, found, splits)
    moved = (found != splits.test.batch(rows)).flatten(1).any(1)
    assert moved.any()
    assert wrong[moved].all()
    assert (scores[moved] <= limit + 1e-4).all()


def test_matching_moves_features_to_another_class(
    model: Classifier, splits: Splits, deep_features: dict[str, Features]
) -> None:
    rows = range(len(splits.test))
    found = run(Matching(eps=EPS, steps=20, guides=deep_features["train"]), model, splits, rows)
    with torch.no_grad():
        features = DeepFeatures()(model, found, torch.arange(len(found)))
    fooled = features.preds != splits.test.targets(rows)
    assert fooled.float().mean() > 0.4
    others = deep_features["train"].preds[None, :] != splits.test.targets(rows)[:, None]
    before = torch.cdist(deep_features["test"].penultimate, deep_features["train"].penultimate).masked_fill(
        ~others, torch.inf
    )
    after = torch.cdist(features.penultimate, deep_features["train"].penultimate).masked_fill(~others, torch.inf)
    assert (after.amin(1) < before.amin(1))[fooled].all()


def test_ood_is_texture_of_a_confident_class(model: Classifier, splits: Splits) -> None:
    attack = OffAnatomy(steps=30, confidence=0.8)
    found = run(attack, model, splits)
    with torch.no_grad():
        confident = model(found).softmax(1).amax(1) >= 0.8
    assert confident.float().mean() > 0.5
    images = splits.test.batch(range(COUNT))
    alike = torch.corrcoef(torch.cat([found.flatten(1), images.flatten(1)]))[:COUNT, COUNT:].diagonal()
    assert alike.abs().mean() < 0.5
    assert (found[0] != found[1]).any()


def test_the_orthogonal_part_is_orthogonal() -> None:
    first, second = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    left = orthogonal_part(first, second)
    torch.testing.assert_close((left * second).flatten(1).sum(1), torch.zeros(3), atol=1e-5, rtol=0)
    assert torch.equal(orthogonal_part(first, torch.zeros_like(first)), first)


def answers(preds: list[int], scores: list[float], labels: list[int]) -> ScoredImages:
    names = np.array([f"p{i}" for i in range(len(preds))])
    return ScoredImages(np.array(labels), np.eye(2)[preds], names, np.array(scores))


def test_the_worst_case_is_the_least_suspicious_of_those_that_fool() -> None:
    labels = [0, 0, 0, 0]
    clean = answers([0, 0, 0, 1], [0, 0, 0, 0], labels)
    one = answers([1, 0, 0, 1], [5, 1, 1, 3], labels)
    two = answers([1, 1, 0, 1], [2, 9, 4, 6], labels)
    worst = least_suspicious(clean, [one, two])
    assert worst.preds.tolist() == [1, 1, 0, 1]
    assert worst.scores.tolist() == [2, 9, 4, 3]
    assert successful(clean, worst).tolist() == [True, True, False, False]


def test_evasion_needs_both_a_wrong_prediction_and_acceptance() -> None:
    labels = [0, 0, 0, 0, 0]
    clean = answers([0, 0, 0, 0, 1], [0.0, 0.1, 0.2, 0.3, 0.4], labels)
    attacked = answers([1, 1, 0, 0, 1], [0.5, 9, 0.5, 9, 0.5], labels)
    found = summarise_evasion(clean, attacked, np.linspace(0, 1, 101), resamples=10, confidence=0.9)
    assert found["success"] == 0.5  # two of four that were right
    assert found["evasion"] == {"0.01": 0.25, "0.05": 0.25, "0.1": 0.25}
    assert (found["n"], found["patients"], found["right"], found["successful"]) == (5, 5, 4, 2)
    low, high = found["evasion_ci"]["0.05"]
    assert 0 <= low < 0.25 < high <= 1

"""Fit a model's detectors on clean training images, and set their thresholds on clean validation patients."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from medrobust.core.calibration import fit_temperature
from medrobust.core.errors import UserError
from medrobust.core.params.detection import DetectParams
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset
from medrobust.detection.base import build_detector
from medrobust.detection.extract import SuiteAttack, all_features, changed_images
from medrobust.detection.features import DeepFeatures, Extractor, Features
from medrobust.detection.guard import Fitted, Guard
from medrobust.detection.measures import clean_threshold

Said = dict[Extractor, Features]


@dataclass(frozen=True)
class Splits:
    """The images of a run and the seed of all that is drawn for them."""

    train: Subset
    val: Subset
    test: Subset
    seed: int


def pick(subset: Subset, most: int) -> Subset:
    """At most `most` images of a subset, evenly spaced in its order, so that patients and classes stay mixed."""
    return subset.evenly_spaced(most)


def clean_features(model: nn.Module, extractors: Iterable[Extractor], subset: Subset, seed: int) -> Said:
    """Features of a subset as it is."""
    return all_features(model, extractors, subset, image_seeds(subset.ids, seed))


def fit_guard(
    model: nn.Module, splits: Splits, plan: dict[str, Any], params: DetectParams, weights: str
) -> tuple[Guard, Said]:
    """Fit every detector that params name.

    Args:
        model: in eval mode.
        splits: detectors learn from train (at most `params.train_images`); val sets thresholds and temperature.
        plan: as `plan.make_plan` gives it; supervised detectors learn from its suite `params.seen`.
        params: the block `detect`.
        weights: sha256 of the model's weights.

    Returns:
        The guard, and the features of the training images that it learned from.

    Raises:
        UserError: a supervised detector without `params.seen`, or what a detector's `fit` refuses.
    """
    where, kinds = "params.yaml: detect.detectors", plan["detectors"]
    detectors = {
        name: build_detector(kinds[name], own, f"{where}.{name}") for name, own in params.detectors.items()
    }
    extractors = {detector.extractor for detector in detectors.values()} | {DeepFeatures()}
    train = pick(splits.train, params.train_images)
    learned = clean_features(model, extractors, train, splits.seed)
    attacked: Said = {}
    if supervised := [name for name, detector in detectors.items() if detector.supervised]:
        if params.seen is None:
            remedy = "Name the suite whose attack they learn from, one of detect.suites"
            raise UserError("params.yaml: detect.seen", f"null, but {supervised[0]} is supervised", remedy)
        attack = SuiteAttack(plan["suites"][params.seen], params.suites[params.seen], train)
        images = changed_images(model, train, attack, splits.seed, f"{params.seen} on training images")
        attacked = all_features(model, extractors, images, image_seeds(train.ids, splits.seed))
    held_out = clean_features(model, extractors, splits.val, splits.seed)
    labels, fitted = torch.from_numpy(train.labels), {}
    for name, detector in detectors.items():
        key = detector.extractor
        detector.fit(learned[key], labels, attacked=attacked.get(key), seed=splits.seed)
        scores = detector.score(held_out[key]).numpy()
        threshold = clean_threshold(scores, params.fpr)
        fitted[name] = Fitted(detector, threshold, float(scores.mean()), max(float(scores.std()), 1e-12))
    temperature = fit_temperature(held_out[DeepFeatures()].logits, torch.from_numpy(splits.val.labels))
    return Guard(fitted, temperature, params.fpr, weights), learned


def scores_of(guard: Guard, said: Said) -> dict[str, np.ndarray]:
    """Each detector's scores of images, n, from their features."""
    return {name: f.detector.score(said[f.detector.extractor]).numpy() for name, f in guard.detectors.items()}

"""Fit a model's detectors on clean training images, and set their thresholds on clean validation images."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from medrobust.core.calibration import fit_temperature
from medrobust.core.errors import UserError
from medrobust.core.params.detection import DetectParams
from medrobust.data.store import Subset
from medrobust.detection.attacked_images import SuiteAttack, changed_images
from medrobust.detection.base import build_detector
from medrobust.detection.features import DeepFeatures, Extractor, Features, extract_features
from medrobust.detection.guard import FittedDetector, Guard
from medrobust.detection.measures import clean_threshold


@dataclass(frozen=True)
class Splits:
    """The images of a run, and the seed of all random draws."""

    train: Subset
    val: Subset
    test: Subset
    seed: int


def fit_guard(
    model: nn.Module, splits: Splits, plan: dict[str, Any], params: DetectParams, weights: str
) -> tuple[Guard, Features]:
    """Fit every detector that params.yaml names, for a model in eval mode whose `weights` are given by sha256.

    Detectors learn from at most `params.train_images` images of train; supervised ones also from the suite
    `params.seen`, resolved in `plan["suites"]`. Thresholds and temperature are set on val. Returns the guard, and
    the deep features of the training images that it learned from.

    Raises:
        UserError: a detector or hyper-parameter that the registry does not know, a supervised detector without
            `params.seen`, or features that a detector cannot be fitted to.
    """
    detectors = {
        name: build_detector(name, settings, f"params.yaml: detect.detectors.{name}")
        for name, settings in params.detectors.items()
    }
    extractors = {detector.extractor for detector in detectors.values()} | {DeepFeatures()}
    train = splits.train.evenly_spaced(params.train_images)
    clean = extract_features(model, extractors, train, splits.seed)
    attacked: dict[Extractor, Features] = {}
    if supervised := [name for name, detector in detectors.items() if detector.supervised]:
        if params.seen is None:
            remedy = "Set it to the suite whose attack they learn from, one of detect.suites"
            raise UserError("params.yaml: detect.seen", f"null, but {supervised[0]} is supervised", remedy)
        attack = SuiteAttack(plan["suites"][params.seen], params.suites[params.seen], train)
        images = changed_images(model, train, attack, splits.seed, f"{params.seen} on training images")
        attacked = extract_features(model, extractors, train, splits.seed, images)
    held_out = extract_features(model, extractors, splits.val, splits.seed)
    labels, fitted = torch.from_numpy(train.labels), {}
    for name, detector in detectors.items():
        key = detector.extractor
        detector.fit(clean[key], labels, held_out=held_out[key], attacked=attacked.get(key), seed=splits.seed)
        scores = detector.score(held_out[key]).numpy()
        threshold = clean_threshold(scores, params.fpr)
        fitted[name] = FittedDetector(detector, threshold, float(scores.mean()), max(float(scores.std()), 1e-12))
    temperature = fit_temperature(held_out[DeepFeatures()].logits.numpy(), splits.val.labels)
    return Guard(fitted, temperature, params.fpr, weights), clean[DeepFeatures()]

"""Predict images with a model and, if given, its guard: `medrobust.predict`."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.core.errors import UserError
from medrobust.detection.guard import Guard, load_guard
from medrobust.models import folder


@dataclass(frozen=True)
class Prediction:
    """The result for one image; a human must look at rejected ones.

    `label` is None for a rejected image. `probabilities` maps class to probability, also for rejected images, and
    is calibrated if there is a guard. `reason` is one sentence, or empty. `score` is the detector's, None without
    a guard.
    """

    label: str | None
    probabilities: dict[str, float]
    rejected: bool
    reason: str
    score: float | None


def predict(
    images: Tensor | np.ndarray,
    model: nn.Module | Path | str,
    guard: Guard | Path | str | None = None,
    *,
    detector: str | None = None,
    seed: int = 0,
) -> list[Prediction]:
    """Predict the class of each image, or reject it.

    Args:
        images: float, n×C×H×W in [0, 1].
        model: a loaded classifier or ensemble, or the folder of a checkpoint.
        guard: the model's guard, or its folder; None = no image is rejected, and probabilities are uncalibrated.
        detector: name of the guard's detector to use; None = the first in params.yaml.
        seed: of detectors with random draws; the draw for an image depends only on the seed and the image.

    Raises:
        UserError: the images are outside [0, 1] or have a wrong shape, the guard belongs to another model, or it
            has no such detector.
    """
    if isinstance(guard, Path | str):
        guard = load_guard(guard)
    if isinstance(model, Path | str):
        if guard is not None and folder.weights_hash(Path(model)) != guard.model:
            raise UserError(str(model), "is not the model that the guard was fitted to", "Run `dvc repro detect`")
        model = folder.load(model)
    batch = _checked(images).to(next(model.parameters()).device)
    with torch.no_grad():
        logits = model(batch).double()
        if guard is None:
            return [_prediction(model, row, None, "") for row in logits.softmax(1)]
        name = next(iter(guard.detectors)) if detector is None else detector
        if name not in guard.detectors:
            raise UserError("detector", f"the guard has no {name!r}", f"It has: {', '.join(guard.detectors)}")
        fitted = guard.detectors[name]
        fitted.detector.to(batch.device)
        image_seeds = [zlib.crc32(image.numpy().tobytes()) + (seed << 32) for image in batch.cpu()]
        features = fitted.detector.extractor(model, batch, torch.tensor(image_seeds, device=batch.device))
        scores = fitted.detector.score(features).tolist()
    predictions = []
    for row, score in zip((logits / guard.temperature).softmax(1), scores, strict=True):
        limit = f"{fitted.threshold:.4g}, which {guard.fpr:.1%} of clean images exceed"
        reason = f"{name}: score {score:.4g} is above {limit}" if score > fitted.threshold else ""
        predictions.append(_prediction(model, row, score, reason))
    return predictions


def _prediction(model: nn.Module, probabilities: Tensor, score: float | None, reason: str) -> Prediction:
    classes: Any = model.classes
    by_class = dict(zip(classes, probabilities.tolist(), strict=True))
    label = None if reason else max(by_class, key=lambda name: by_class[name])
    return Prediction(label, by_class, bool(reason), reason, score)


def _checked(images: Tensor | np.ndarray) -> Tensor:
    batch = torch.as_tensor(images).float()
    if batch.ndim != 4 or not len(batch) or batch.shape[1] not in (1, 3):
        raise UserError("images", f"shape {tuple(batch.shape)}", "Use n×C×H×W with n above 0 and 1 or 3 channels")
    if not (float(batch.min()) >= 0 and float(batch.max()) <= 1):
        found = f"values from {float(batch.min()):.3g} to {float(batch.max()):.3g}"
        raise UserError("images", found, "Use pixels in [0, 1] (divide 8-bit pixels by 255)")
    return batch

"""Predict images and patients with a model and, if it has one, its guard: `medrobust.predict`."""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medrobust.data.inputs import Fault, InputImage
from medrobust.inference.inputs import to_batch, to_inputs
from medrobust.inference.loaded import GuardChoice, LoadedModel, open_model
from medrobust.models.aggregates import MeanLogProbability

BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """The result for one image, or for one patient from all images; a human must look at rejected ones.

    Attributes:
        label: None if the image is rejected. A patient is rejected if more than half of the images are.
        probabilities: class -> probability, also if rejected.
        reason: why it is rejected, in one sentence; otherwise empty.
        score, threshold: of the detector; None without a guard, and for a patient.
        calibrated: whether the probabilities are calibrated on clean validation images (patients).
        unit: whether this is the answer for an image or for a patient.
        file, slice, patient: where the image comes from; see `data.inputs.InputImage`. For a patient whose id is
            not known, `file` is the volume or series.
        images: number of images that the answer is made of.
    """

    label: str | None
    probabilities: dict[str, float]
    rejected: bool
    reason: str
    score: float | None
    threshold: float | None = None
    calibrated: bool = False
    unit: Literal["image", "patient"] = "image"
    file: str = ""
    slice: int | None = None
    patient: str = ""
    images: int = 1


def predict(
    images: Any,
    model: nn.Module | Path | str,
    guard: GuardChoice = None,
    *,
    detector: str | None = None,
    unit: Literal["image", "patient"] = "image",
    seed: int = 0,
) -> list[Prediction]:
    """Predict the class of each image or patient, or reject it.

    Args:
        images: paths, pictures, arrays or tensors, see `inference.inputs.to_inputs`. The result does not depend on
            the form in which an image is given.
        model: a model folder, or a module that `medrobust.load` returned.
        guard: None for the guard in the model's folder; another guard or its folder; False for none. Without a
            guard no image is rejected.
        detector: name of the guard's detector to use; None = the first in params.yaml.
        unit: `patient` gives one answer per patient, volume or series instead of one per image.
        seed: of detectors with random draws; the draw for an image depends only on the seed and the image.

    Raises:
        UserError: an image cannot be used, the folder of the model is damaged, the guard belongs to another model,
            or it has no such detector.
    """
    loaded = open_model(model, guard, detector)
    answers = answer(loaded, to_inputs(images, loaded), seed=seed)
    return [one for one in answers if isinstance(one, Prediction) and one.unit == unit]


def answer(
    model: LoadedModel, inputs: Iterable[InputImage | Fault], *, seed: int = 0
) -> Iterator[Prediction | Fault]:
    """The answers for images as they are read, in order; faults are passed on. Then those for patients.

    A patient is named by the table or the DICOM header; without a name, a volume or series counts as one.
    """
    patients: dict[tuple[str, str], list[tuple[Tensor, bool]]] = {}
    for batch in _batches(inputs):
        images = [one for one in batch if isinstance(one, InputImage)]
        answered = iter(_answer_images(model, images, seed) if images else [])
        for one in batch:
            if isinstance(one, Fault):
                yield one
                continue
            prediction, output = next(answered)
            if one.patient or one.volume:
                key = (one.patient, "" if one.patient else one.volume)
                patients.setdefault(key, []).append((output, prediction.rejected))
            yield prediction
    for (patient, volume), parts in patients.items():
        yield _answer_patient(model, patient, volume, parts)


def _batches(inputs: Iterable[InputImage | Fault]) -> Iterator[list[InputImage | Fault]]:
    batch: list[InputImage | Fault] = []
    for one in inputs:
        batch.append(one)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _answer_images(model: LoadedModel, inputs: list[InputImage], seed: int) -> list[tuple[Prediction, Tensor]]:
    """The answer for each image, and the output that the model of patients reads of it."""
    batch, fitted = to_batch(inputs, model.device), model.fitted
    scores: list[float | None] = [None] * len(inputs)
    with torch.no_grad():
        if fitted is None:
            logits = model.network(batch).double()
        else:
            seeds = [zlib.crc32(image.numpy().tobytes()) + (seed << 32) for image in batch.cpu()]
            features = fitted.detector.extractor(model.network, batch, torch.tensor(seeds, device=batch.device))
            logits, scores = features.logits.double(), fitted.detector.score(features).tolist()
        if model.patient is not None and model.patient.aggregate.needs_features:
            outputs = model.patient.outputs(batch)
        else:
            outputs = logits.float().log_softmax(1)
    probabilities = (logits / (model.temperature or 1.0)).softmax(1)
    found = []
    for one, row, score, output in zip(inputs, probabilities, scores, outputs, strict=True):
        prediction = _prediction(model, row, score)
        found.append((replace(prediction, file=one.file, slice=one.slice, patient=one.patient), output))
    return found


def _prediction(model: LoadedModel, probabilities: Tensor, score: float | None) -> Prediction:
    by_class = dict(zip(model.classes, probabilities.tolist(), strict=True))
    reason, threshold = "", None
    if model.guard and model.fitted and score is not None:
        threshold = model.fitted.threshold
        limit = f"{threshold:.4g}, which {model.guard.fpr:.1%} of clean images exceed"
        reason = f"{model.detector}: score {score:.4g} is above {limit}" if score > threshold else ""
    label = None if reason else max(by_class, key=lambda name: by_class[name])
    calibrated = model.temperature is not None
    return Prediction(label, by_class, bool(reason), reason, score, threshold, calibrated)


def _answer_patient(model: LoadedModel, patient: str, volume: str, parts: list[tuple[Tensor, bool]]) -> Prediction:
    """One answer from the outputs of all images of a patient: by the fitted aggregate, or by their mean."""
    aggregate = model.patient.aggregate if model.patient else MeanLogProbability()
    temperature = model.use.patient_temperature if model.patient and model.use else None
    with torch.no_grad():
        logits = aggregate(torch.stack([output for output, _ in parts])[None])[0].double()
    by_class = dict(zip(model.classes, (logits / (temperature or 1.0)).softmax(0).tolist(), strict=True))
    rejected = sum(rejected for _, rejected in parts)
    reason = f"{rejected} of {len(parts)} images are rejected" if 2 * rejected > len(parts) else ""
    label = None if reason else max(by_class, key=lambda name: by_class[name])
    return Prediction(
        label, by_class, bool(reason), reason, None, calibrated=temperature is not None, unit="patient",
        file=volume, patient=patient, images=len(parts),
    )  # fmt: skip

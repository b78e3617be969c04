"""A model behind a detector: its answer is a class with calibrated probabilities, or "rejected" and why."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.core.errors import UserError
from medrobust.core.records import atomic_dir, read_json, write_json
from medrobust.detection.adaptive.attacks import Suspicion
from medrobust.detection.base import Detector, build_detector
from medrobust.models import checkpoint


@dataclass(frozen=True)
class Fitted:
    """A detector with what validation patients say of its scores.

    Attributes:
        detector: fitted on training images.
        threshold: score above which an image is rejected; chosen on clean validation images.
        middle, spread: mean and standard deviation of the score there.
    """

    detector: Detector
    threshold: float
    middle: float
    spread: float

    @property
    def suspicion(self) -> Suspicion:
        """The detector as an attacker who knows it sees it."""
        return Suspicion(self.detector, self.middle, self.spread)

    @property
    def limit(self) -> float:
        """The threshold in standard deviations of clean scores."""
        return (self.threshold - self.middle) / self.spread


@dataclass(frozen=True)
class Answer:
    """What is told of one image.

    Attributes:
        label: the class, or None where the image was rejected.
        probabilities: class -> calibrated probability; of a rejected image only for the record.
        rejected: whether a human must look.
        reason: why, in a sentence; empty if accepted.
        score: of the detector; None without one.
    """

    label: str | None
    probabilities: dict[str, float]
    rejected: bool
    reason: str
    score: float | None


@dataclass(frozen=True)
class Guard:
    """The detectors of one model.

    Attributes:
        detectors: name -> fitted detector, in the order of params.yaml.
        temperature: divides the logits, fitted on clean validation images (Guo et al. 2017).
        fpr: share of clean validation images above each threshold.
        model: sha256 of the weights that the detectors were fitted to; of a vote, of all its members' weights.
    """

    detectors: dict[str, Fitted]
    temperature: float
    fpr: float
    model: str

    def chosen(self, name: str | None) -> tuple[str, Fitted]:
        """The named detector, or the first.

        Raises:
            UserError: no such detector.
        """
        name = next(iter(self.detectors)) if name is None else name
        if name not in self.detectors:
            raise UserError("detector", f"the guard has no {name!r}", f"It has: {', '.join(self.detectors)}")
        return name, self.detectors[name]


def save_guard(folder: Path, guard: Guard) -> None:
    """Write `card.json` and `detectors.safetensors`, whole or not at all."""
    from safetensors.torch import save_file

    state = {
        f"{name}.{key}": value.contiguous().cpu()
        for name, fitted in guard.detectors.items()
        for key, value in fitted.detector.state.items()
    }
    rows = {
        name: {
            "kind": fitted.detector.kind,
            "settings": fitted.detector.hyperparameters(),
            **{key: getattr(fitted, key) for key in ("threshold", "middle", "spread")},
        }
        for name, fitted in guard.detectors.items()
    }
    with atomic_dir(folder) as temporary:
        save_file(state, temporary / "detectors.safetensors")
        facts = {"temperature": guard.temperature, "fpr": guard.fpr, "model": guard.model}
        write_json(temporary / "card.json", {**facts, "detectors": rows})


def load_guard(folder: Path | str, device: torch.device | str = "cpu") -> Guard:
    """The guard that `save_guard` wrote.

    Raises:
        UserError: a file is missing.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    card, weights = read_json(folder / "card.json"), folder / "detectors.safetensors"
    if not weights.is_file():
        raise UserError(str(weights), "no such file", "Run `dvc repro` or `dvc pull`")
    state = load_file(weights)
    detectors = {}
    for name, row in card["detectors"].items():
        detector = build_detector(row["kind"], row["settings"], str(folder / "card.json"))
        own = f"{name}."
        detector.state = {key.removeprefix(own): value for key, value in state.items() if key.startswith(own)}
        detectors[name] = Fitted(detector.to(device), row["threshold"], row["middle"], row["spread"])
    return Guard(detectors, card["temperature"], card["fpr"], card["model"])


def predict(
    images: Tensor | np.ndarray,
    model: nn.Module | Path | str,
    guard: Guard | Path | str | None = None,
    *,
    detector: str | None = None,
    seed: int = 0,
) -> list[Answer]:
    """Answer each image, or reject it.

    Args:
        images: float, n×C×H×W in [0, 1].
        model: a loaded classifier or vote, or a checkpoint's folder.
        guard: its guard, or the folder of one; None = every image is answered, with uncalibrated probabilities.
        detector: which of the guard's detectors rejects; None = the first of params.yaml.
        seed: of detectors that draw at random; an image's draw depends on it and the image alone.

    Raises:
        UserError: images outside [0, 1] or of a wrong shape, or a guard of another model.
    """
    if isinstance(guard, Path | str):
        guard = load_guard(guard)
    if isinstance(model, Path | str):
        if guard is not None and read_json(Path(model) / "card.json").get("sha256") != guard.model:
            raise UserError(str(model), "is not the model that the guard was fitted to", "Run `dvc repro detect`")
        model = checkpoint.load(model)
    batch = _checked(images).to(next(model.parameters()).device)
    with torch.no_grad():
        logits = model(batch).double()
        if guard is None:
            return [_answer(model, row, None, "") for row in logits.softmax(1)]
        name, fitted = guard.chosen(detector)
        fitted.detector.to(batch.device)
        marks = [zlib.crc32(image.numpy().tobytes()) + (seed << 32) for image in batch.cpu()]
        seeds = torch.tensor(marks, device=batch.device)
        scores = fitted.detector.score(fitted.detector.extractor(model, batch, seeds)).tolist()
    answers = []
    for row, score in zip((logits / guard.temperature).softmax(1), scores, strict=True):
        limit = f"{fitted.threshold:.4g}, which {guard.fpr:.1%} of clean images exceed"
        reason = f"{name}: score {score:.4g} is above {limit}" if score > fitted.threshold else ""
        answers.append(_answer(model, row, score, reason))
    return answers


def _answer(model: nn.Module, probabilities: Tensor, score: float | None, reason: str) -> Answer:
    # A vote has its members' classes.
    names: Any = getattr(model, "classes", None) or model.members[0].classes  # type: ignore[index, union-attr]
    chances = dict(zip(names, probabilities.tolist(), strict=True))
    label = None if reason else max(chances, key=lambda name: chances[name])
    return Answer(label, chances, bool(reason), reason, score)


def _checked(images: Tensor | np.ndarray) -> Tensor:
    batch = torch.as_tensor(images).float()
    if batch.ndim != 4 or not len(batch) or batch.shape[1] not in (1, 3):
        raise UserError("images", f"shape {tuple(batch.shape)}", "Give n×C×H×W, n above 0, with 1 or 3 channels")
    if not (float(batch.min()) >= 0 and float(batch.max()) <= 1):
        found = f"values from {float(batch.min()):.3g} to {float(batch.max()):.3g}"
        raise UserError("images", found, "Give [0, 1] images (divide 8-bit pixels by 255)")
    return batch

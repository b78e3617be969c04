"""The guard of a model: its fitted detectors, their thresholds, and the temperature of its probabilities."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from medrobust.core.errors import UserError
from medrobust.core.records import atomic_dir, file_hash, read_json, write_json
from medrobust.data.store import Subset
from medrobust.detection.base import Detector, build_detector
from medrobust.detection.features import DeepFeatures, extract_features
from medrobust.detection.measures import ScoredImages


@dataclass(frozen=True)
class FittedDetector:
    """A fitted detector and the threshold above which it rejects.

    `middle` and `spread` are the mean and the standard deviation of its scores on clean validation images.
    """

    detector: Detector
    threshold: float
    middle: float
    spread: float

    @property
    def standardised_threshold(self) -> float:
        """The threshold in standard deviations of clean validation scores."""
        return (self.threshold - self.middle) / self.spread

    def logits_and_score(self, model: nn.Module, images: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Logits n×K and standardised score n, both differentiable with respect to the images.

        In standard deviations of clean validation scores, one range of weights serves every detector.
        """
        features = self.detector.extractor(model, images, seeds)
        return features.logits, (self.detector.score(features) - self.middle) / self.spread


@dataclass(frozen=True)
class Guard:
    """The detectors of one model, by their names in the registry and in the order of params.yaml.

    Attributes:
        temperature: divides the logits; fitted on clean validation images (Guo et al. 2017).
        fpr: share of clean validation images above each threshold.
        model: sha256 of the weights that the detectors were fitted to; for an ensemble, of all members' weights.
    """

    detectors: dict[str, FittedDetector]
    temperature: float
    fpr: float
    model: str

    def to(self, device: torch.device | str) -> None:
        for fitted in self.detectors.values():
            fitted.detector.to(device)


def score_images(
    model: nn.Module, guard: Guard, subset: Subset, seed: int, images: Tensor | None = None
) -> dict[str, ScoredImages]:
    """Predictions of the model (in eval mode) and scores of each detector (on the CPU), by detector.

    `images` (n×C×H×W) replaces the subset's own images, for instance by attacked versions of them.
    """
    extractors = {fitted.detector.extractor for fitted in guard.detectors.values()} | {DeepFeatures()}
    features = extract_features(model, extractors, subset, seed, images)
    probabilities = (features[DeepFeatures()].logits.double() / guard.temperature).softmax(1).numpy()
    scored = {}
    for name, fitted in guard.detectors.items():
        scores = fitted.detector.score(features[fitted.detector.extractor]).numpy()
        scored[name] = ScoredImages(subset.labels, probabilities, subset.patients, scores)
    return scored


def save_guard(folder: Path, guard: Guard) -> None:
    """Write `card.json` and `detectors.safetensors`; the folder appears complete or not at all."""
    from safetensors.torch import save_file

    state = {
        f"{name}.{key}": value.contiguous().cpu()
        for name, fitted in guard.detectors.items()
        for key, value in fitted.detector.state.items()
    }
    rows = {
        name: {
            "settings": fitted.detector.hyperparameters(),
            **{key: getattr(fitted, key) for key in ("threshold", "middle", "spread")},
        }
        for name, fitted in guard.detectors.items()
    }
    with atomic_dir(folder) as temporary:
        save_file(state, temporary / "detectors.safetensors")
        facts = {
            "temperature": guard.temperature,
            "fpr": guard.fpr,
            "model": guard.model,
            "sha256": file_hash(temporary / "detectors.safetensors"),
        }
        write_json(temporary / "card.json", {**facts, "detectors": rows})


def load_guard(folder: Path | str, device: torch.device | str = "cpu") -> Guard:
    """The guard that `save_guard` wrote.

    Raises:
        UserError: a file is missing or damaged, or the card names a detector that is not in the registry or a
            hyper-parameter that its annotation does not allow.
    """
    from safetensors.torch import load_file

    path, weights = Path(folder) / "card.json", Path(folder) / "detectors.safetensors"
    card = read_json(path)
    if not weights.is_file():
        raise UserError(str(weights), "no such file", "Run `dvc repro` or `dvc pull`")
    if not isinstance(card, dict) or file_hash(weights) != card.get("sha256"):
        raise UserError(str(weights), "is not the file that card.json describes", "Run `dvc checkout`")
    state = load_file(weights)
    detectors = {}
    for name, row in card["detectors"].items():
        detector = build_detector(name, row["settings"], f"{path}: detectors.{name}")
        own = f"{name}."
        detector.state = {key.removeprefix(own): value for key, value in state.items() if key.startswith(own)}
        detectors[name] = FittedDetector(detector.to(device), row["threshold"], row["middle"], row["spread"])
    return Guard(detectors, card["temperature"], card["fpr"], card["model"])

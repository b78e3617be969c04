"""A small published model, untrained, with a guard that rejects attacked images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrobust.core.params.training import ModelParams
from medrobust.core.records import file_hash
from medrobust.detection.detectors.squeeze import FeatureSqueezing
from medrobust.detection.guard import FittedDetector, Guard, save_guard
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier
from medrobust.models.classifier import Classifier
from medrobust.models.use import GUARD
from tests.inference.model_folder import write_use

CLASSES = ["healthy", "<b>ill</b>"]
SIZE = 32
#: Of the guard: above the scores of `pixels`, below those of their attacked versions (Linf, 0.01).
THRESHOLD = 0.9
VOLUME = {"range": [0.0, 1.0], "step": 1, "frame": None}


def publish(folder: Path, *, guarded: bool = True, size: int = SIZE) -> Path:
    """The folder of a grey model of two classes; the same weights at each call."""
    block = ModelParams(timm="resnet10t", weights="none", image_size=SIZE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = build_classifier(block, CLASSES).eval()
    images = torch.from_numpy(np.stack([pixels(seed) for seed in range(4)])[:, None] / 255).float()
    _sharpen(classifier, images)
    checkpoint.save(folder, classifier, block, {"regime": "clean"})
    if guarded:
        detector = FeatureSqueezing(bits=1, window=0)
        with torch.no_grad():
            features = detector.extractor(classifier, images, torch.arange(4))
        detector.fit(features, torch.zeros(4, dtype=torch.int64), held_out=features)
        fitted = FittedDetector(detector, threshold=THRESHOLD, middle=0.0, spread=1.0)
        save_guard(folder / GUARD, Guard({"squeeze": fitted}, 1.5, 0.05, file_hash(folder / "model.safetensors")))
    own = {"image_size": size, "channels": 1, "window": None, "volume": VOLUME}
    write_use(folder, input=own)
    return folder


def _sharpen(classifier: Classifier, images: torch.Tensor) -> None:
    """Make untrained logits differ as trained ones do; the first image is a little on the side of class 0."""
    head: Any = classifier.backbone.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        head.weight *= 200
        first = classifier(images[:1])[0]
        head.bias[0] += first[1] - first[0] + 0.5


def pixels(seed: int = 0, size: int = SIZE) -> np.ndarray:
    """A grey image, uint8 size×size, with a bright blob."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    centre = rng.uniform(0.3, 0.7, 2)
    blob = np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / 0.05)
    return (40 + 180 * blob).astype(np.uint8)

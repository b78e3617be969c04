"""Seconds that each detector takes to fit and to score: `python benchmarks/detection.py [--exact]`.

A ResNet-34 with random weights looks at random images of the default size: the time does not depend on what is
in them. Features are timed apart, because detectors of equal extractors share them: those of the training images
(and, for supervised detectors, of attacked ones; the attack itself is not timed) and those of the test images.
Prints a Markdown table.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from medrobust.attacks.random import image_seeds
from medrobust.data.store import Subset
from medrobust.detection.base import build_detector
from medrobust.detection.extract import all_features
from medrobust.detection.registry import DETECTORS
from medrobust.models.build import build_classifier
from medrobust.params.training import ModelParams

#: What a detector needs beyond its defaults to run on a network without dropout.
SETTINGS = {"dropout": {"rate": 0.3}}
CLASSES = ["a", "b", "c", "d"]


def subset(count: int, size: int, seed: int) -> Subset:
    """Grey images of random blocks, every fourth of a class."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
    pixels = coarse.repeat(size // 8, 1).repeat(size // 8, 2)
    names = np.array([f"{seed}-{number}" for number in range(count)])
    return Subset(pixels, np.arange(count), np.arange(count) % 4, names, names, CLASSES)


def main() -> None:
    """Time every detector of the registry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=2000, help="training images")
    parser.add_argument("--test", type=int, default=1279, help="test images")
    parser.add_argument("--size", type=int, default=64, help="side in pixels")
    parser.add_argument("--timm", default="resnet34", help="backbone")
    parser.add_argument("--exact", action="store_true", help="LID against all training images too")
    parser.add_argument("--cpu", action="store_true", help="seconds of processor time instead of the clock's")
    parser.add_argument("--only", choices=sorted(DETECTORS), help="one detector")
    args = parser.parse_args()
    block = ModelParams(timm=args.timm, weights="none", image_size=args.size)
    model = build_classifier(block, CLASSES).eval()
    train, test = subset(args.train, args.size, 0), subset(args.test, args.size, 1)
    noisy = (train.batch(range(len(train))) + 0.05 * torch.randn(len(train), 1, args.size, args.size)).clamp(0, 1)
    print("| detector | training features | test features | fit | score | all |\n|" + " --- |" * 6)
    rows: list[tuple[str, dict[str, float]]] = [
        (name, SETTINGS.get(name, {})) for name in DETECTORS if args.only in (None, name)
    ]
    if args.exact:
        rows.append(("lid", {"reference": 0}))
    for name, settings in rows:
        clock = time.process_time if args.cpu else time.perf_counter
        parts = timed(name, settings, model, (train, test), noisy, clock)
        label = f"{name} (exact)" if settings.get("reference") == 0 else name
        print(f"| {label} | " + " | ".join(f"{part:.1f} s" for part in (*parts, sum(parts))) + " |", flush=True)


def timed(
    name: str,
    settings: dict[str, float],
    model: torch.nn.Module,
    parts: tuple[Subset, Subset],
    noisy: Tensor,
    clock: Callable[[], float],
) -> list[float]:
    """Seconds of the features of the training and of the test images, of fitting and of scoring."""
    detector, (train, test) = build_detector(DETECTORS[name], settings, name), parts
    key, marks = detector.extractor, [clock()]
    seeds = image_seeds(train.ids, 0)
    clean = all_features(model, [key], train, seeds)[key]
    attacked = all_features(model, [key], noisy, seeds)[key] if detector.supervised else None
    marks.append(clock())
    features = all_features(model, [key], test, image_seeds(test.ids, 0))[key]
    marks.append(clock())
    detector.fit(clean, torch.from_numpy(train.labels), attacked=attacked)
    marks.append(clock())
    detector.score(features)
    marks.append(clock())
    return list(np.diff(marks))


if __name__ == "__main__":
    main()

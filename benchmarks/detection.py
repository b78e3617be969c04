"""Seconds that each detector takes to fit and to score: `python benchmarks/detection.py`.

A ResNet-34 with random weights looks at random images of the default size: the time does not depend on what is
in them. Features are timed apart, because detectors of equal extractors share them: those of the training images
(and, for supervised detectors, of attacked ones; the attack itself is not timed) and those of the test images.
Exact LID runs on half of the training images and on all, so that its growth is seen. Prints a Markdown table,
whether every other detector stays below the limit, and how exact LID grows.
"""

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
import torch

from medrobust.core.params.training import ModelParams
from medrobust.data.store import Subset
from medrobust.detection.base import build_detector
from medrobust.detection.features import extract_features
from medrobust.detection.registry import DETECTORS
from medrobust.models.build import build_classifier

#: What a detector needs beyond its defaults to run on a network without dropout.
SETTINGS = {"dropout": {"rate": 0.3}}
CLASSES = ["a", "b", "c", "d"]
#: Seconds that a detector may take, exact LID apart.
LIMIT = 60.0
EXACT: dict[str, float] = {"reference": 0}


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
    parser.add_argument("--cpu", action="store_true", help="seconds of processor time instead of the clock's")
    parser.add_argument("--only", choices=sorted(DETECTORS), help="one detector")
    args = parser.parse_args()
    clock = time.process_time if args.cpu else time.perf_counter
    block = ModelParams(timm=args.timm, weights="none", image_size=args.size)
    model = build_classifier(block, CLASSES).eval()
    names = [name for name in DETECTORS if args.only in (None, name)]
    runs = [(name, args.train, SETTINGS.get(name, {})) for name in names]
    if "lid" in names:
        runs += [("lid", count, EXACT) for count in (args.train // 2, args.train)]
    test = subset(args.test, args.size, 1)
    print(
        "| detector | training images | training features | test features | fit | score | all |\n|" + " --- |" * 7
    )
    totals, exact = {}, []
    for name, count, settings in runs:
        parts = timed(name, settings, model, (subset(count, args.size, 0), test), clock)
        if settings == EXACT:
            exact.append((count, *parts[2:]))
        else:
            totals[name] = sum(parts)
        label = f"{name} (exact)" if settings == EXACT else name
        print(
            f"| {label} | {count} | " + " | ".join(f"{part:.1f} s" for part in (*parts, sum(parts))) + " |",
            flush=True,
        )
    slow = [f"{name} {total:.0f} s" for name, total in totals.items() if total >= LIMIT]
    print(f"\nBesides exact LID, {args.test} test images: {'; '.join(slow) or 'every detector'} "
          f"{'not ' if slow else ''}in under {LIMIT:.0f} s.")  # fmt: skip
    if exact:
        print(growth(*exact))


def growth(half: tuple[int, float, float], whole: tuple[int, float, float]) -> str:
    """How the seconds of exact LID grow from one number of training images to a larger one, in words."""
    ratio = math.log(whole[0] / half[0])
    powers = [math.log(after / before) / ratio for before, after in zip(half[1:], whole[1:], strict=True)]
    return (
        f"Exact LID from {half[0]} to {whole[0]} training images (N): fitting grows as N^{powers[0]:.1f}, scoring "
        f"as N^{powers[1]:.1f}; each image is compared with all N in each layer."
    )


def timed(
    name: str,
    settings: dict[str, float],
    model: torch.nn.Module,
    parts: tuple[Subset, Subset],
    clock: Callable[[], float],
) -> list[float]:
    """Seconds of the features of the training and of the test images, of fitting and of scoring."""
    detector, (train, test) = build_detector(name, settings, name), parts
    images = train.batch(range(len(train)))
    noisy = (images + 0.05 * torch.randn(images.shape)).clamp(0, 1)
    key, marks = detector.extractor, [clock()]
    clean = extract_features(model, [key], train, 0)[key]
    attacked = extract_features(model, [key], train, 0, noisy)[key] if detector.supervised else None
    marks.append(clock())
    features = extract_features(model, [key], test, 0)[key]
    marks.append(clock())
    detector.fit(clean, torch.from_numpy(train.labels), held_out=features, attacked=attacked)
    marks.append(clock())
    detector.score(features)
    marks.append(clock())
    return list(np.diff(marks))


if __name__ == "__main__":
    main()

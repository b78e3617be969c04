"""Cases of any number and size, with random pixels: what the stage `cases` would write, without a model."""

from typing import Any

import numpy as np

from medrobust.cases.pictures import picture, stacked
from tests.cases.small_run import suite

CLASSES = ["a", "b", "c", "d"]
SUITE = suite("white_box", eps=(0.005, 0.01, 0.02))
#: As many as the default run shows; the last one has no maps.
MODELS = [*(f"m{number}-{regime}" for number in range(3) for regime in ("clean", "adv")), "ensemble"]


def synthetic_cases(count: int, side: int) -> dict[str, Any]:
    """`count` grey images of `side` pixels; each model has a version of each image at every radius."""
    rng = np.random.default_rng(0)
    detector = {"name": "gmm", "threshold": 1.0, "fpr": 0.05}
    models = [
        {"name": name, "layer": None if name == "ensemble" else "layer2", "detector": detector} for name in MODELS
    ]
    cases = [
        {
            "image": number, "patient": number // 2 + 1, "label": number % len(CLASSES),
            "picture": picture(_tiles(rng, 1, side)[0]),
            "models": {name: _answers(rng, side, maps=name != "ensemble") for name in MODELS},
        }
        for number in range(count)
    ]  # fmt: skip
    known = {key: SUITE[key] for key in ("name", "norm", "eps")}
    return {"classes": CLASSES, "suites": [known], "models": models, "cases": cases}


def _answers(rng: np.random.Generator, side: int, *, maps: bool) -> dict[str, Any]:
    versions = [
        {"eps": eps, "attack": "fgsm", "distance": eps, "largest": eps, **_answer(rng)} for eps in SUITE["eps"]
    ]
    return {
        **_answer(rng), "suites": {SUITE["name"]: {"fooled_at": None, "fooled_by": None, "versions": versions}},
        "changes": stacked(_tiles(rng, len(versions), side)),
        "maps": stacked(_tiles(rng, len(versions) + 1, side)) if maps else None,
    }  # fmt: skip


def _answer(rng: np.random.Generator) -> dict[str, Any]:
    return {"probabilities": rng.dirichlet(np.ones(len(CLASSES))).tolist(), "margin": 0.5, "score": 0.5}


def _tiles(rng: np.random.Generator, count: int, side: int) -> list[np.ndarray]:
    return list(rng.integers(0, 256, (count, side, side), dtype=np.uint8))

"""Detectors are fitted, score images and are attacked on another device as on the CPU."""

import copy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from torch import Tensor

from medrobust.core.records import read_table
from medrobust.detection.fitting import Splits
from medrobust.detection.guard import Guard, load_guard
from medrobust.detection.registry import DETECTORS
from medrobust.detection.run import DetectionOutputs, run_detection
from medrobust.inference.predict import predict
from medrobust.models.classifier import Classifier
from tests.detection.test_detection_run import ALL, REPORT, settings
from tests.other_device import other_device


def run(folder: Path, model: Classifier, splits: Splits, suite: dict[str, Any]) -> pd.DataFrame:
    """A cell of every detector and every adaptive attack; its scores."""
    out = DetectionOutputs(folder / "guard", folder / "scores.parquet", folder / "metrics.json", folder / "plots")
    params = settings(
        detectors={name: ALL.get(name, {}) for name in DETECTORS}, suites={"pgd": 0.1},
        adaptive={
            "attacks": ["joint", "orthogonal", "matching", "ind", "ood"], "images": 4, "steps": 2, "searches": 2,
        },
    )  # fmt: skip
    plan = {"suites": {"pgd": suite}}
    run_detection(model, splits, plan, out, ordered=True, params=params, report=REPORT, made_on={"weights": "w"})
    return read_table(out.scores)


def judge(images: Tensor, model: Classifier, guard: Guard | Path, detector: str) -> list[float]:
    """A detector's scores of images, by `medrobust.predict`."""
    scores = [answer.score for answer in predict(images, model, guard, detector=detector)]
    return [score for score in scores if score is not None]


@pytest.mark.slow
def test_every_detector_scores_there_as_here(
    model: Classifier, splits: Splits, suite: dict[str, Any], tmp_path: Path
) -> None:
    few = Splits(
        splits.train.evenly_spaced(60), splits.val.evenly_spaced(16), splits.test.evenly_spaced(8), splits.seed
    )
    images = few.test.batch(range(4))
    expected = run(tmp_path / "here", model, few, suite)
    answers = {name: judge(images, model, tmp_path / "here" / "guard", name) for name in DETECTORS}
    with other_device() as device:
        there = copy.deepcopy(model).to(device)
        found = run(tmp_path / "there", there, few, suite)
        for name in DETECTORS:
            guard = tmp_path / "there" / "guard"
            assert judge(images, there, load_guard(guard, device), name) == pytest.approx(answers[name])
            assert judge(images.to(device), there, guard, name) == pytest.approx(answers[name])
    pd.testing.assert_frame_equal(found, expected)

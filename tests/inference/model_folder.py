"""A published model folder, small and real: network, guard, model of patients, suites; and an ensemble of two."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrobust.core.params.detection import DetectParams
from medrobust.core.params.training import ModelParams
from medrobust.core.records import write_json
from medrobust.detection.fitting import Splits, fit_guard
from medrobust.detection.guard import save_guard
from medrobust.models import checkpoint
from medrobust.models.aggregates import MeanLogProbability
from medrobust.models.build import build_classifier
from medrobust.models.card import weights_hash
from medrobust.models.combination import Combination
from medrobust.models.ensemble import save_ensemble
from medrobust.models.patient import PatientModel, save_patient_model
from medrobust.models.use import GUARD, PATIENT, SUITES, USE
from medrobust.report.publish.parts import copy_members
from tests.params import default_block
from tests.small import CLASSES, make_subset

SIDE = 12
MODEL = ModelParams(timm="resnet10t", weights="none", image_size=32)
SUITE: dict[str, Any] = {
    "name": "pgd", "norm": "Linf", "eps": [0.1, 0.5], "give_up": False,
    "attacks": [{"name": "pgd", "hyperparameters": {"steps": 3}}],
}  # fmt: skip


def write_use(folder: Path, **changes: Any) -> None:
    volume = {"range": [0.0, 1.0], "step": 1, "frame": None}
    own = {
        "image_size": SIDE, "channels": 1, "window": None, "volume": volume, "resampling": "bilinear",
        "fit": "squash",
    }  # fmt: skip
    use = {
        "input": own, "slices": True, "temperature": 1.5, "patient_temperature": 2.0, "ordered": False,
        "bootstrap": 20, "confidence": 0.9, "grid": 2,
    }  # fmt: skip
    write_json(folder / USE, {**use, **changes})
    write_json(folder / SUITES, {"pgd": SUITE})


def write_model(folder: Path, *, seed: int = 0, alone: bool = False) -> Path:
    """A model folder as `publish` writes it; `alone` without guard and model of patients, as of a member."""
    torch.manual_seed(seed)
    checkpoint.save(folder, build_classifier(MODEL, CLASSES), MODEL, {"regime": "adv"})
    if not alone:
        network = checkpoint.load(folder)
        splits = Splits(make_subset("train", 6, 0), make_subset("val", 6, 1), make_subset("test", 6, 2), seed=0)
        few: dict[str, Any] = {"detectors": {"gmm": {}, "kde": {}}, "seen": None, "suites": {}, "fpr": 0.1}
        plan: dict[str, Any] = {"suites": {}}
        guard, _ = fit_guard(
            network, splits, plan, default_block(DetectParams, "detect", **few), weights_hash(folder)
        )
        save_guard(folder / GUARD, guard)
        patients = PatientModel(network, MeanLogProbability(), 1)
        save_patient_model(folder / PATIENT, folder, patients, {"aggregate": "mean", "hidden": 1})
    write_use(folder)
    return folder


def write_ensemble(folder: Path) -> Path:
    """A published ensemble of two models, without a guard."""
    members = {name: write_model(folder / "made" / name, seed=k, alone=True) for k, name in enumerate("ab")}
    facts = {"method": "equal", "regime": "adv", "fitted_on": "x"}
    save_ensemble(folder / "fitted", members, Combination(weights=[0.5, 0.5]), facts)
    copy_members(folder / "fitted", folder / "published")
    write_use(folder / "published")
    return folder / "published"


def picture(seed: int, side: int = 30) -> np.ndarray:
    """Grey pixels like those of the training images, in another size."""
    subset = make_subset("x", 6, seed)
    pixels = subset.store_images[seed % len(subset)]
    return np.kron(pixels, np.ones((3, 3), dtype=np.uint8))[:side, :side]

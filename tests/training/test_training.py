"""The loop learns, resumes bit by bit, stops on NaN; objectives and studies do what they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.attacks.pgd import PGD
from medrobust.data.augment import build_augmentation
from medrobust.data.store import Subset
from medrobust.errors import UserError
from medrobust.params.training import AdvParams, AugmentParams, ModelParams, TrainParams, TuneParams
from medrobust.records import read_json, read_table
from medrobust.training import loop
from medrobust.training.loop import (
    Job,
    build_optimiser,
    build_scheduler,
    class_weights,
    fit,
    precision,
    resume_path,
)
from medrobust.training.objectives import clean_objective, mixed_objective
from medrobust.training.tuning import tune_stage

AUGMENT = AugmentParams(
    p=0.5, horizontal_flip=True, vertical_flip=True, rotation=10, translate=0.05, scale=[0.9, 1.1],
    brightness=0.1, contrast=0.1, sharpness=0.5,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def settings(**changes: Any) -> TrainParams:
    block = {
        "epochs": 4, "lr": 0.01, "optimiser": "Adam", "batch_size": 16, "scheduler": "CosineAnnealingLR",
        "weight_decay": 0.0, "label_smoothing": 0.0, "class_weights": "balanced", "precision": "fp32", **changes,
    }  # fmt: skip
    return TrainParams.model_validate(block)


def subset(n: int = 48, size: int = 16) -> Subset:
    """Two classes, dark and bright, one image a patient."""
    labels = np.arange(n) % 2
    pixels = np.random.default_rng(0).normal(80 + 90 * labels[:, None, None], 20, (n, size, size))
    ids = np.array([f"i{k}" for k in range(n)])
    return Subset(np.clip(pixels, 0, 255).astype(np.uint8), np.arange(n), labels, ids, ids, ["dark", "bright"])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)
    )


def job(**changes: Any) -> Job:
    parts: dict[str, Any] = {
        "model": network(), "train": subset(), "val": subset(), "settings": settings(), "augment": AUGMENT,
        "objective": clean_objective(None, 0.0), "attack": None, "seed": 1, **changes,
    }  # fmt: skip
    return Job(**parts)


def test_the_loop_learns_and_keeps_the_best_epoch() -> None:
    result = fit(job(settings=settings(epochs=12)))
    assert result.best_value > 0.95
    assert len(result.history) == 12
    assert result.history[result.best_epoch]["val_balanced_accuracy"] == result.best_value


def test_an_interrupted_training_ends_as_an_undisturbed_one() -> None:
    whole = job(key="whole")
    expected = fit(whole)

    def kill(epoch: int, value: float) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(job(key="cut"), kill)
    again = job(key="cut", model=network())
    torch.rand(7)  # whatever else drew in between
    result = fit(again)
    assert result.history == expected.history
    for one, other in zip(whole.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_full_disk_leaves_the_old_resume_file(monkeypatch: pytest.MonkeyPatch) -> None:
    save: Callable[..., None] = torch.save
    calls = []

    def full(state: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise OSError("No space left on device")
        save(state, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        fit(job(key="full"))
    assert len(torch.load(resume_path("full"), weights_only=True)["result"]["history"]) == 1


def test_a_nan_loss_names_epoch_step_and_rate() -> None:
    def nan(model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor) -> Tensor:
        loss: Tensor = model(images).sum() * torch.nan
        return loss

    with pytest.raises(
        UserError, match=r"loss nan at epoch 1, step 1 \(no epoch was finished\).*learning rate \(now 0.01\)"
    ):
        fit(job(objective=nan))


def test_robust_validation_decides_with_an_attack() -> None:
    result = fit(job(attack=PGD(eps=0.02, steps=2)))
    assert all("val_robust_balanced_accuracy" in row for row in result.history)
    assert result.best_value == max(row["val_robust_balanced_accuracy"] for row in result.history)


@pytest.mark.parametrize("optimiser", ["SGD", "RMSprop", "Adam"])
@pytest.mark.parametrize("scheduler", ["StepLR", "CosineAnnealingLR", "ReduceLROnPlateau"])
def test_every_optimiser_and_schedule_runs(optimiser: str, scheduler: str) -> None:
    chosen = settings(optimiser=optimiser, scheduler=scheduler, epochs=2, lr=1e-3)
    built = build_optimiser(network(), chosen)
    assert type(built).__name__ == optimiser
    assert type(build_scheduler(built, chosen)).__name__ == scheduler
    assert len(fit(job(settings=chosen)).history) == 2


def test_class_weights_undo_the_imbalance() -> None:
    data = subset()
    uneven = Subset(
        data.store_images, data.rows, np.array([0] * 36 + [1] * 12), data.ids, data.patients, data.classes
    )
    weight = class_weights(uneven, "balanced", torch.device("cpu"))
    assert weight is not None
    assert weight.tolist() == pytest.approx([48 / 72, 48 / 24])
    assert class_weights(uneven, "none", torch.device("cpu")) is None


def test_precision_by_name() -> None:
    cpu = torch.device("cpu")
    assert precision(settings(precision="auto"), cpu) == torch.float32
    assert precision(settings(precision="bf16"), cpu) == torch.bfloat16
    assert fit(job(settings=settings(precision="bf16", epochs=12))).best_value > 0.9


def test_augmentation_keeps_shape_and_range_and_p_0_changes_nothing() -> None:
    images = torch.rand(8, 1, 16, 16)
    changed = build_augmentation(AUGMENT)(images)
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert not torch.equal(changed, images)
    still = AUGMENT.model_copy(update={"p": 0.0})
    assert torch.allclose(build_augmentation(still)(images), images, atol=1e-6)


def adv(**changes: Any) -> AdvParams:
    return AdvParams.model_validate(
        {"eps": 0.05, "alpha": "auto", "steps": 3, "mix": 0.3, "epochs": 1, "lr_scale": 1.0, **changes}
    )


def test_the_mixed_loss_is_what_its_equation_says() -> None:
    model, data = network().eval(), subset(8)
    images, labels, seeds = data.batch(range(8)), data.targets(range(8)), torch.arange(8)
    weight = torch.tensor([0.5, 2.0])
    found = mixed_objective(adv(), weight, 0.0)(model, images, labels, seeds)
    attacked = PGD(eps=0.05, steps=3, stop_when_fooled=False)(model, images, labels, seeds=seeds)

    def loss(inputs: Tensor) -> Tensor:
        chosen = F.log_softmax(model(inputs), 1)[torch.arange(8), labels]
        return -(weight[labels] * chosen).sum() / weight[labels].sum()

    assert torch.allclose(found, 0.7 * loss(images) + 0.3 * loss(attacked), atol=1e-6)
    clean = mixed_objective(adv(mix=0.0), None, 0.1)(model, images, labels, seeds)
    assert torch.allclose(clean, clean_objective(None, 0.1)(model, images, labels, seeds), atol=1e-6)


def tune(folder: Path, trials: int, **train: Any) -> None:
    space = {
        "lr": [1e-4, 1e-1], "optimiser": ["SGD", "Adam"], "batch_size": [16, 32],
        "scheduler": ["StepLR", "CosineAnnealingLR"],
    }  # fmt: skip
    tune_stage(
        "b", {"train": subset(), "val": subset()}, {"data": "x"}, out=folder / "out", metrics=folder / "m.json",
        plots=folder / "plots", seed=0, model=ModelParams(timm="resnet10t", weights="none", image_size=16),
        train=settings(lr=1e-2, **train), augment=AUGMENT,
        tune=TuneParams.model_validate({"trials": trials, "epochs": 1, "space": space}),
    )  # fmt: skip


def test_a_study_starts_from_the_block_and_goes_on(tmp_path: Path) -> None:
    tune(tmp_path, 1)
    first = read_json(tmp_path / "out" / "best.json")
    assert (first["lr"], first["optimiser"], first["batch_size"], first["trial"]) == (0.01, "Adam", 16, 0)
    tune(tmp_path, 3)
    trials = read_table(tmp_path / "out" / "trials.csv")
    assert list(trials["trial"]) == [0, 1, 2]
    best = read_json(tmp_path / "out" / "best.json")
    assert best["value"] >= first["value"]
    assert read_json(tmp_path / "m.json")["trials"] == 3


def test_a_diverging_trial_is_recorded_and_no_trial_means_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(tmp_path, 0)
    assert read_json(tmp_path / "out" / "best.json")["lr"] == 0.01
    monkeypatch.setattr(loop, "DIVERGED", 0.0)
    tune(tmp_path, 1)
    assert read_json(tmp_path / "m.json")["fail"] == 1
    assert read_json(tmp_path / "out" / "best.json")["value"] is None

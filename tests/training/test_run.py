"""The stages as functions: what they write, and that hidden labels have no effect."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from medrobust.core.errors import UserError
from medrobust.core.params.report import ReportParams
from medrobust.core.params.training import ModelParams
from medrobust.core.records import read_json, read_metrics, read_table, write_json, write_table
from medrobust.data.store import Subset
from medrobust.training import loop, run, state
from medrobust.training.objectives.registry import OBJECTIVES
from medrobust.training.run import PreparedImages, TrainingRun, TrainOutputs, adv_train_stage, train_stage
from medrobust.training.settings import TrainingSettings
from tests.training.conftest import AUGMENT, adv, settings, write_images


def make_run(folder: Path, regime: str, objective: str = "mixed", **changes: Any) -> TrainingRun:
    """A run of a small network on a few images; its results go to `folder/<regime>`."""
    model = ModelParams(timm="resnet10t", weights="none", image_size=16)
    block = adv(objective=objective, steps=1, **changes) if regime != "clean" else None
    chosen = TrainingSettings(
        backbone="b", model=model, train=settings(epochs=1, class_weights="balanced"),
        objective=OBJECTIVES["cross_entropy"], adv=block, adv_objective=OBJECTIVES[objective] if block else None,
    )  # fmt: skip
    write_json(folder / "best.json", {"lr": 2e-3, "value": None, "trial": None})
    out = folder / regime
    return TrainingRun(
        settings=chosen, images=PreparedImages.open(folder / "data" / "prepared", folder / "data" / "split.csv"),
        best=folder / "best.json",
        outputs=TrainOutputs(out / "model", out / "p.parquet", out / "m.json", out / "plots"),
        seed=1, augment=AUGMENT,
        report=ReportParams(title="t", bootstrap=10, confidence=0.95, pictures=True, cases=0, repeated=[]),
    )  # fmt: skip


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """A folder with images and a clean model."""
    write_images(tmp_path)
    train_stage(make_run(tmp_path, "clean"))
    return tmp_path


def test_the_card_records_what_decided_the_training(clean: Path) -> None:
    adv_train_stage(make_run(clean, "adv"), clean / "clean" / "model")
    first, second = (read_json(clean / regime / "model" / "card.json") for regime in ("clean", "adv"))
    assert first["params"]["train"]["lr"] == 2e-3
    assert "adv" not in first["params"]
    assert second["params"]["adv"]["eps"] == 0.05
    assert second["params"]["clean"] == first["sha256"]
    assert not list(Path("tmp/resume").glob("*")), "a resume file is left"


def test_a_training_with_other_weight_files_has_another_resume_key(clean: Path) -> None:
    def key(sha256: str) -> str | None:
        stage = make_run(clean, "clean")
        settings = stage.settings.model_copy(update={"files": {"w.pth": sha256}})
        job, facts = replace(stage, settings=settings).job("clean", nn.Identity(), stage.train)  # type: ignore[arg-type]
        assert "w.pth" not in str(facts), "the card must not contain paths"
        return job.key

    assert key("a") == key("a") != key("b")


def test_hidden_labels_do_not_affect_the_model(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is bit-equal for any values of the hidden labels."""

    def hidden(scramble: bool) -> str:
        def hide(subset: Subset, share: float, seed: int) -> tuple[Subset, Subset]:
            half = len(subset) // 2
            first, last = subset.take(np.arange(half)), subset.take(np.arange(half, len(subset)))
            return first, replace(last, labels=1 - last.labels) if scramble else last

        monkeypatch.setattr(run, "hide_labels", hide)
        adv_train_stage(make_run(clean, f"ssat{scramble}", "ssat", unlabelled=0.5), clean / "clean" / "model")
        card = read_json(clean / f"ssat{scramble}" / "model" / "card.json")
        shares.append(card["params"]["unlabelled"]["right_pseudo_labels"])
        return str(card["sha256"])

    shares: list[float] = []
    assert hidden(scramble=False) == hidden(scramble=True)
    # With two classes, each pseudo-label is right for one labelling and wrong for the other.
    assert sum(shares) == pytest.approx(1.0)
    assert not list(Path("tmp/resume").glob("*")), "a resume file is left"


def test_a_folder_of_images_is_pseudo_labelled_by_the_clean_model(clean: Path) -> None:
    (clean / "more").mkdir()
    for number in range(5):
        Image.fromarray(np.full((16, 16), 40 * number, np.uint8)).save(clean / "more" / f"{number}.png")
    stage = make_run(clean, "ssat", "ssat", unlabelled=str(clean / "more"))
    adv_train_stage(stage, clean / "clean" / "model")
    assert read_json(clean / "ssat" / "model" / "card.json")["params"]["unlabelled"]["images"] == 5


def test_a_clean_model_of_other_classes_is_refused(clean: Path) -> None:
    stage = make_run(clean, "adv")
    other = replace(stage.images.subsets["train"], classes=["x", "y"])
    images = replace(stage.images, subsets={**stage.images.subsets, "train": other})
    with pytest.raises(UserError, match=r"was trained on \['dark', 'bright'\]"):
        adv_train_stage(replace(stage, images=images), clean / "clean" / "model")


def test_the_metrics_record_why_a_training_stopped(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = loop.fit

    def stopped(job: Any, on_epoch: Any) -> Any:
        result = fit(job, on_epoch)
        result.stopped = "catastrophic overfitting"
        return result

    monkeypatch.setattr(run, "fit", stopped)
    adv_train_stage(make_run(clean, "adv", "fgsm_rs"), clean / "clean" / "model")
    assert read_metrics(clean / "adv" / "m.json")["stopped"] == "catastrophic overfitting"
    assert "stopped" not in read_metrics(clean / "clean" / "m.json")


@pytest.mark.parametrize("text", ["CUDA out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"])
def test_an_out_of_memory_error_names_the_batch_size(
    clean: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def out_of_memory(job: Any, on_epoch: Any) -> Any:
        raise (torch.OutOfMemoryError if "of memory" in text else RuntimeError)(text)

    monkeypatch.setattr(run, "fit", out_of_memory)
    message = rf"train\.batch_size: batches of 16 images do not fit .*\({text}.*\)\. Use smaller ones"
    with pytest.raises(UserError, match=message):
        train_stage(make_run(clean, "clean"))
    with pytest.raises(UserError, match=message):
        adv_train_stage(make_run(clean, "adv"), clean / "clean" / "model")


def test_other_errors_of_torch_are_not_changed(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: Any, on_epoch: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(run, "fit", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        train_stage(make_run(clean, "clean"))


def test_a_running_training_shows_its_last_epoch(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dvc exp show` reads the stage's metrics file, `dvc plots` the curves; the record replaces the former."""
    stage = make_run(clean, "adv")
    out, run_epoch, seen = stage.outputs, loop.Trainer.run_epoch, []

    def watched(trainer: loop.Trainer, epoch: int) -> dict[str, float]:
        if epoch:
            seen.append((read_json(out.metrics), (out.plots / "live/plots/metrics/loss.tsv").read_text()))
        return run_epoch(trainer, epoch)

    block = stage.settings.adv
    assert block is not None
    longer = stage.settings.model_copy(update={"adv": block.model_copy(update={"epochs": 3})})
    monkeypatch.setattr(loop.Trainer, "run_epoch", watched)
    adv_train_stage(replace(stage, settings=longer), clean / "clean" / "model")
    history = pd.read_csv(out.plots / "history.csv")
    assert [shown["epoch"] for shown, _ in seen] == [1, 2]
    for (shown, curve), rows in zip(seen, (1, 2), strict=True):
        last = history.iloc[rows - 1]
        assert shown.keys() == {"epoch", "loss", "val_clean", "val_robust"}
        assert shown["val_robust"] == pytest.approx(last["val_robust_balanced_accuracy"], abs=1e-4)
        assert len(curve.splitlines()) == rows + 1  # a head and one line per epoch
    assert len(read_metrics(out.metrics)) > 5
    assert len((out.plots / "live/plots/metrics/loss.tsv").read_text().splitlines()) == 4
    assert not list(out.plots.parent.glob(".*"))


def test_a_resume_file_is_deleted_without_those_that_another_run_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two queued runs may train the same model at once."""
    monkeypatch.chdir(tmp_path)
    path = state.resume_path("key")
    path.parent.mkdir(parents=True)
    writing, cut = path.with_name(f".key.{os.getpid()}.tmp.pt"), path.with_name(".key.999999999.tmp.pt")
    for file in (path, writing, cut):
        file.write_bytes(b"x")
    state.delete_resume_file("key")
    assert list(path.parent.iterdir()) == [writing]


def test_images_that_the_split_sets_aside_are_unlabelled(clean: Path) -> None:
    """The clean model has not seen them, so it makes the pseudo-labels and is the start."""
    table = read_table(clean / "data" / "split.csv", dtype=str)
    rows = table.index[table["split"] == "train"][:6]
    table.loc[rows, "split"] = "unlabelled"
    write_table(clean / "data" / "split.csv", table)
    train_stage(make_run(clean, "clean"))
    stage = make_run(clean, "ssat", "ssat", unlabelled="split")
    assert sorted(stage.images.subsets["unlabelled"].ids) == sorted(table["id"][rows])
    adv_train_stage(stage, clean / "clean" / "model")
    params = read_json(clean / "ssat" / "model" / "card.json")["params"]
    assert params["unlabelled"]["images"] == 6
    assert 0 <= params["unlabelled"]["right_pseudo_labels"] <= 1
    assert params["clean"] == read_json(clean / "clean" / "model" / "card.json")["sha256"]

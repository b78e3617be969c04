"""Predictions on corrupted images, the search for worse ones, and what is computed from both."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from medrobust.core.lineage import MADE_ON
from medrobust.core.params.report import ReportParams
from medrobust.core.records import read_json, read_metrics, read_table, write_metrics
from medrobust.corruptions.evaluate import COLUMNS, corrupted_predictions
from medrobust.corruptions.run import CorruptionOutputs, PatientGroups, evaluate_corruptions
from medrobust.corruptions.summary import Summary, mean_corruption_error
from medrobust.data.store import Subset
from medrobust.patients.subsets import PatientSubset
from tests.params import default_block

NAMES = ["gamma", "rician_noise", "resolution"]


class Brightness(nn.Module):
    """Two classes, told apart by the mean of an image."""

    classes = ("dark", "bright")

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(limit))

    def forward(self, images: Tensor) -> Tensor:
        value = images.flatten(1).mean(1) - self.limit
        return torch.stack([-value, value], dim=1)


@pytest.fixture
def subset() -> Subset:
    """Twelve patients with two images each, dark and bright ones; every second one is near the limit of 0.5."""
    levels = np.repeat([110, 60, 140, 200] * 3, 2)
    noise = np.random.default_rng(0).integers(-30, 30, (24, 16, 16))
    ids = np.array([f"i{number:02}" for number in range(24)])
    patients = np.array([f"p{number // 2}" for number in range(24)])
    pixels = (levels[:, None, None] + noise).astype(np.uint8)
    return Subset(pixels, np.arange(24), (levels > 127).astype(np.int64), ids, patients, ["dark", "bright"])


def predictions(subset: Subset, draws: int = 3, limit: float = 0.5) -> pd.DataFrame:
    return corrupted_predictions(Brightness(limit), subset, NAMES, [1, 5], draws=draws, seed=4)


def test_every_image_has_a_row_per_corruption_and_severity(subset: Subset) -> None:
    table = predictions(subset)
    assert list(table.columns) == COLUMNS
    first = table[table["draw"] == 0]
    assert first.groupby(["corruption", "severity"]).size().to_dict() == {
        ("none", 0): 24, **{(name, severity): 24 for name in NAMES for severity in (1, 5)}
    }  # fmt: skip
    assert (first.loc[first["corruption"] == "none", "distance"] == 0).all()
    assert (first.loc[first["corruption"] != "none", "distance"] > 0).all()


def test_the_search_tries_the_images_that_are_right_so_far_from_the_strongest_severity_on(subset: Subset) -> None:
    table = predictions(subset)
    found = table[table["draw"] > 0]
    assert set(found["corruption"]) == {"gamma", "rician_noise"}, "resolution has nothing to draw"
    for (image, name), rows in found.groupby(["id", "corruption"]):
        earlier = table[(table["id"] == image) & (table["draw"] == 0) & table["corruption"].isin(["none", name])]
        assert (earlier["pred"] == earlier["label"]).all()
        wrong = (rows["pred"] != rows["label"]).to_numpy()
        assert not wrong[:-1].any(), "the search went on after an error"
        steps = [(1, 5), (1, 1), (2, 5), (2, 1)]
        assert list(zip(rows["draw"], rows["severity"], strict=True)) == steps[: len(rows)]
        assert wrong[-1] or len(rows) == 4
    gamma = found[found["corruption"] == "gamma"]
    assert (gamma["pred"] != gamma["label"]).any(), "another sign of gamma fools where the first did not"


def test_neither_the_other_images_nor_their_number_change_a_result(subset: Subset) -> None:
    whole, rows = predictions(subset), np.array([20, 3, 7])
    part = predictions(subset.take(rows))
    wanted = whole[whole["id"].isin(subset.ids[rows])]
    columns = ["id", "corruption", "draw", "severity"]
    pd.testing.assert_frame_equal(
        part.sort_values(columns, ignore_index=True), wanted.sort_values(columns, ignore_index=True), atol=1e-5
    )


def test_a_second_draw_is_another_and_one_draw_is_no_search(subset: Subset) -> None:
    assert set(predictions(subset, draws=1)["draw"]) == {0}
    table = predictions(subset)
    noise = table[(table["corruption"] == "rician_noise") & (table["severity"] == 5)]
    lengths = noise.pivot_table(index="id", columns="draw", values="distance").dropna()
    assert len(lengths) > 3
    assert (lengths[0] != lengths[1]).all()


def summary(table: pd.DataFrame, **changes: Any) -> Summary:
    return Summary(table, ["dark", "bright"], **{"resamples": 300, "confidence": 0.9, **changes})


def by_hand() -> pd.DataFrame:
    """Two dark and two bright patients with one image each; the first is wrong when clean."""
    preds = {
        ("none", 0, 0): [1, 0, 1, 1], ("gamma", 1, 0): [1, 0, 1, 1], ("gamma", 5, 0): [1, 1, 1, 0],
        ("motion", 1, 0): [0, 0, 1, 0], ("motion", 5, 0): [1, 1, 0, 0],
    }  # fmt: skip
    rows = [
        {"id": f"i{k}", "patient": f"p{k}", "label": k // 2, "corruption": name, "severity": severity,
         "draw": draw, "pred": pred, "distance": severity + k}
        for (name, severity, draw), values in preds.items()
        for k, pred in enumerate(values)
    ]  # fmt: skip
    searched = {**rows[4], "id": "i2", "patient": "p2", "label": 1, "severity": 5, "draw": 1, "pred": 0}
    return pd.DataFrame([*rows, searched])


def test_the_record_of_predictions_made_by_hand() -> None:
    record = summary(by_hand()).record()
    assert (record["n"], record["patients"], record["balanced_accuracy"]) == (4, 4, 0.75)
    gamma, motion = (record["corruptions"][name] for name in ("gamma", "motion"))
    assert [gamma["severities"][key]["balanced_accuracy"] for key in ("1", "5")] == [0.75, 0.25]
    assert [motion["severities"][key]["balanced_accuracy"] for key in ("1", "5")] == [0.75, 0.0]
    assert gamma["severities"]["5"]["relative_drop"] == pytest.approx(2 / 3)
    assert gamma["severities"]["1"]["relative_drop_ci"] == [0, 0], "the same predictions, on the same patients"
    assert gamma["severities"]["5"]["l2"] == 6.5
    # Of gamma the search found an error on i2, so that no image stays right; of motion none did before.
    assert (gamma["worst"]["balanced_accuracy"], motion["worst"]["balanced_accuracy"]) == (0, 0)
    assert record["worst"]["balanced_accuracy"] == 0
    assert record["mean_balanced_accuracy"] == pytest.approx((0.75 + 0.25 + 0.75 + 0) / 4)
    assert record["mean_relative_drop"] == pytest.approx((0 + 2 / 3 + 0 + 1) / 4)


def test_the_distance_of_the_worst_case_is_that_of_the_nearest_wrong_version() -> None:
    """Of i1 to i3, which are right when clean: gamma 6, 1 (by search) and 8, motion 6, 7 and 4, all 6, 1 and 4."""
    record = summary(by_hand()).record()
    assert [record["corruptions"][name]["worst"]["l2"] for name in ("gamma", "motion")] == [6, 6]
    assert record["worst"]["l2"] == 4
    table = by_hand()
    stays = table.assign(pred=table["label"].where(table["id"] == "i3", table["pred"]))
    assert summary(stays).record()["worst"]["l2"] == 6, "i3 is right up to the farthest version, 8"
    assert summary(table.assign(pred=1 - table["label"])).record()["worst"]["l2"] is None


def test_the_mean_corruption_error_is_that_of_the_paper() -> None:
    """Errors of `by_hand`: gamma 0.25 + 0.75, motion 0.25 + 1; the baseline always says dark: 0.5 everywhere."""
    model, constant = summary(by_hand()), summary(by_hand().assign(pred=0))
    found = mean_corruption_error(model, constant)
    assert found["mean_corruption_error"] == pytest.approx((1.0 / 1.0 + 1.25 / 1.0) / 2)
    low, high = found["mean_corruption_error_ci"]
    assert low < 1.125 < high
    same = mean_corruption_error(model, summary(by_hand()))
    assert same == {"mean_corruption_error": 1.0, "mean_corruption_error_ci": [1.0, 1.0]}


def test_a_baseline_without_errors_has_no_mean_corruption_error() -> None:
    perfect = by_hand()
    perfect["pred"] = perfect["label"]
    found = mean_corruption_error(summary(by_hand()), summary(perfect))
    assert found == {"mean_corruption_error": None, "mean_corruption_error_ci": None}


def test_a_model_that_is_always_wrong_has_no_relative_drop() -> None:
    wrong = by_hand()
    wrong["pred"] = 1 - wrong["label"]
    record = summary(wrong).record()
    assert record["corruptions"]["gamma"]["severities"]["1"]["relative_drop"] is None
    assert record["mean_relative_drop"] is None


def test_a_cell_writes_predictions_and_metrics_with_what_they_were_made_on(subset: Subset, tmp_path: Any) -> None:
    suite = {"modality": "mri", "corruptions": ["gamma"], "severities": [1, 5], "draws": 2}
    out = CorruptionOutputs(tmp_path / "metrics.json", tmp_path / "table.parquet")
    report = default_block(ReportParams, "report", bootstrap=50)
    made_on = {"weights": "w", "data": "d", "split": "s"}
    evaluate_corruptions(Brightness(0.5), subset, None, suite, out, seed=4, report=report, made_on=made_on)
    record, table = read_metrics(out.metrics), read_table(out.table)
    assert record[MADE_ON] == table.attrs[MADE_ON] == made_on
    assert record["balanced_accuracy"] == 1
    assert "patient" not in record
    assert {*table["unit"]} == {"image"}
    worst = record["corruptions"]["gamma"]["worst"]["balanced_accuracy"]
    right = (table["pred"] == table["label"]).groupby(table["id"]).all()
    assert worst == pytest.approx(
        right.groupby(table.drop_duplicates("id").set_index("id")["label"]).mean().mean()
    )
    assert worst < record["corruptions"]["gamma"]["severities"]["5"]["balanced_accuracy"]


class PatientBrightness(Brightness):
    """The same for patients, by the mean over all their images; remembers what it was asked."""

    def __init__(self, limit: float) -> None:
        super().__init__(limit)
        self.asked: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(images.clone())
        return super().forward(images)


@pytest.fixture
def patients(subset: Subset) -> PatientSubset:
    """The twelve patients as rows of two images each."""
    first = np.arange(0, 24, 2)
    names = subset.patients[first]
    return PatientSubset(
        subset.store_images, first[:, None] + [0, 1], subset.labels[first], names, names, subset.classes
    )


@pytest.mark.parametrize(("name", "same"), [("gamma", True), ("rotation", True), ("rician_noise", False)])
def test_images_of_a_patient_share_the_parameters_of_a_series_and_not_the_noise(
    name: str, same: bool, patients: PatientSubset
) -> None:
    patients.store_images[1::2] = patients.store_images[::2]  # both images of a patient are the same
    model = PatientBrightness(0.5)
    corrupted_predictions(model, patients, [name], [5], draws=1, seed=4)
    clean, changed = model.asked
    assert changed.shape == clean.shape == (12, 2, 16, 16)
    assert not torch.equal(changed, clean)
    assert torch.equal(changed[:, 0], changed[:, 1]) == same
    assert not torch.equal(changed[0, 0] - clean[0, 0], changed[4, 0] - clean[4, 0]), "patients differ"


def test_a_record_has_the_same_statistics_of_patients(
    subset: Subset, patients: PatientSubset, tmp_path: Any
) -> None:
    suite = {"modality": "mri", "corruptions": ["gamma", "spike"], "severities": [1, 5], "draws": 2}
    out = CorruptionOutputs(tmp_path / "metrics.json", tmp_path / "table.parquet")
    report = default_block(ReportParams, "report", bootstrap=50)
    model = PatientBrightness(0.5)
    groups = PatientGroups(model, [patients.take(np.arange(5)), patients.take(np.arange(5, 12))])
    evaluate_corruptions(Brightness(0.5), subset, groups, suite, out, seed=4, report=report, made_on={})
    whole = corrupted_predictions(model, patients, ["gamma", "spike"], [1, 5], draws=2, seed=4)
    record = read_metrics(out.metrics)
    expected = Summary(whole, subset.classes, resamples=50, confidence=report.confidence).record()
    write_metrics(tmp_path / "expected.json", expected, {})
    assert record["patient"] == read_metrics(tmp_path / "expected.json")
    assert (record["n"], record["patient"]["n"], record["patient"]["patients"]) == (24, 12, 12)
    table = read_table(out.table)
    assert {*table["unit"]} == {"image", "patient"}
    written = table[table["unit"] == "patient"].drop(columns="unit")
    keys = ["corruption", "severity", "draw", "id"]
    one, other = (part.sort_values(keys, ignore_index=True) for part in (written, whole))
    pd.testing.assert_frame_equal(one, other)
    assert {"corrupted", "worst_corrupted", "patient_corrupted", "patient_worst_corrupted"} <= read_json(
        out.metrics
    ).keys()

"""A cell: the files that it writes, and the reasons for what is missing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch import nn

from medrobust.attacks.regions import foreground
from medrobust.core.params.explain import ExplainParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import read_metrics, read_table
from medrobust.explain.compare_maps import compare_maps
from medrobust.explain.explained_model import ExplainedModel
from medrobust.explain.run import ExplanationOutputs, dvc_metrics, explain_model
from medrobust.models.classifier import Classifier
from tests.explain.conftest import make_explained
from tests.small import make_subset

REPORT = ReportParams(title="t", bootstrap=50, confidence=0.95, pictures=True, cases=0, repeated=[])
PARAMS = ExplainParams(suite="pgd", eps=0.1, images=1, drift_images=10, grid=4, top=0.2, tsne="clean", surface=3)


def run(
    explained: ExplainedModel, folder: Path, params: ExplainParams = PARAMS, report: ReportParams = REPORT
) -> tuple[dict[str, Any], pd.DataFrame, Path]:
    out = ExplanationOutputs(folder / "m.json", folder / "t.parquet", folder / "plots")
    explain_model(explained, out, params=params, report=report, made_on={"weights": "w"})
    return read_metrics(out.metrics), read_table(out.table), out.plots


@pytest.fixture(scope="module")
def done(
    explained: ExplainedModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], pd.DataFrame, Path]:
    """The record, the table and the pictures of a cell."""
    return run(explained, tmp_path_factory.mktemp("done"))


def test_a_cell_writes_measures_pictures_and_captions(
    explained: ExplainedModel, done: tuple[dict[str, Any], pd.DataFrame, Path]
) -> None:
    record, table, plots = done
    assert (record["n"], record["layer"], record["grid"]) == (10, "deep", [6, 6])
    assert record["region"] == "foreground"
    assert len(table) == 20
    assert set(table["map"]) == {"gradcam", "saliency"}
    for kind, part in table.groupby("map"):
        assert record[str(kind)]["iou"] == pytest.approx(part["iou"].mean(), abs=1e-4)
        assert record[str(kind)]["iou_ci"][0] <= record[str(kind)]["iou"] <= record[str(kind)]["iou_ci"][1]
        assert record["changed"] == part["changed"].sum()
    assert set(record["captions"]) == {"right-1", "wrong-1", "fooled-1", "surface", "features"}
    assert record["missing"] == {}
    assert {path.stem for path in plots.glob("*.png")} == set(record["captions"])
    assert {path.stem for path in plots.glob("*.svg")} == {"surface", "features"}
    chosen = explained.predictions.assign(sure=explained.predictions.filter(like="logprob").max(axis=1))
    chosen = chosen[chosen["label"] == chosen["pred"]].sort_values(["sure", "id"], ascending=[False, True])
    [position] = np.flatnonzero(explained.test.ids == chosen["id"].iloc[0])
    assert f": image {explained.test.rows[position]}. Truth" in record["captions"]["right-1"]
    assert not [words for words in record["captions"].values() if chosen["id"].iloc[0] in words]
    for path in plots.glob("*.png"):
        with Image.open(path) as image:
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20


def test_a_second_run_gives_the_same_bytes(
    explained: ExplainedModel, done: tuple[dict[str, Any], pd.DataFrame, Path], tmp_path: Path
) -> None:
    first, second = done, run(explained, tmp_path)
    assert first[0]["pictures"] == second[0]["pictures"]
    assert first[1].equals(second[1])
    for path in first[2].iterdir():
        assert path.read_bytes() == (second[2] / path.name).read_bytes(), path.name


def test_all_images_are_compared_if_none_are_counted(explained: ExplainedModel) -> None:
    assert len(compare_maps(explained, 0, 0.1, 0.2).rows) == len(explained.test)
    assert compare_maps(explained, 3, 0.1, 0.2).rows.tolist() == [0, 18, 35]


def test_regions_are_outlines_where_the_data_has_them(explained: ExplainedModel) -> None:
    plain = compare_maps(explained, 4, 0.1, 0.2)
    clean = explained.test.batch(plain.rows)
    assert plain.share == pytest.approx(foreground(clean).float().mean().item(), rel=1e-5)
    masks = np.zeros(explained.test.store_images.shape, dtype=bool)
    masks[:, :3] = True
    masks[0] = False
    found = compare_maps(replace(explained, test=replace(explained.test, store_masks=masks)), 4, 0.1, 0.2)
    assert (found.region, found.share) == ("outlined", 0.25)
    inside = found.tables["saliency"]["inside_clean"]
    assert np.isnan(inside[0]), "an image without an outline"
    assert inside[1:].notna().all()
    assert not np.allclose(inside[1:], plain.tables["saliency"]["inside_clean"][1:])


def test_rules_that_choose_no_image_are_reported_as_missing(explained: ExplainedModel, tmp_path: Path) -> None:
    right = np.flatnonzero((explained.predictions["label"] == explained.predictions["pred"]).to_numpy())
    test = explained.test.take(right)
    calm = explained.attempts[explained.attempts["attack"] == "natural"]
    other = replace(
        explained,
        test=test,
        predictions=explained.predictions.iloc[right],
        attempts=calm[calm["id"].isin(test.ids)],
    )
    record, _, plots = run(other, tmp_path)
    assert set(record["missing"]) == {"wrong", "fooled"}
    assert "fooled no image" in record["missing"]["fooled"]
    assert set(record["captions"]) == {"right-1", "surface", "features"}
    assert not (plots / "fooled-1.png").exists()


class Bare(nn.Module):
    """A network without stages and features."""

    def __init__(self, inner: Classifier) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Any) -> Any:
        return self.inner(images)


def test_a_model_without_maps_or_features_has_saliency_alone(
    model: Classifier, suite: dict[str, Any], tmp_path: Path
) -> None:
    explained = make_explained(Bare(model), make_subset("test", 3, 2), suite)
    record, table, plots = run(explained, tmp_path)
    assert set(table["map"]) == {"saliency"}
    assert {"gradcam", "features"} <= set(record["missing"])
    assert "gradcam" not in record
    assert (plots / "right-1.png").is_file()


@pytest.mark.parametrize(("images", "pictures"), [(0, True), (1, False)])
def test_no_pictures_of_images_where_none_are_wanted(
    images: int, pictures: bool, explained: ExplainedModel, tmp_path: Path
) -> None:
    report = REPORT.model_copy(update={"pictures": pictures})
    record, _, plots = run(explained, tmp_path, PARAMS.model_copy(update={"images": images}), report)
    assert set(record["captions"]) == {"features"}
    assert {path.name for path in plots.iterdir()} == {"features.png", "features.svg"}


def test_colour_images_and_l2_balls_are_explained_too(model: Classifier, tmp_path: Path) -> None:
    entry = {"name": "pgd_l2", "hyperparameters": {"steps": 3, "random_start": False}}
    suite = {"name": "l2", "norm": "L2", "eps": [1.0], "attacks": [entry]}
    grey = make_subset("test", 3, 2)
    pixels = np.repeat(grey.store_images[..., None], 3, axis=3)
    explained = make_explained(model, replace(grey, store_images=pixels), suite)
    record, _, plots = run(explained, tmp_path, PARAMS.model_copy(update={"eps": 1.0}))
    assert record["gradcam"]["iou_noise"] is not None
    assert (plots / "right-1.png").is_file()


def test_dvc_shows_grad_cams_drift_and_saliencys_where_there_is_none() -> None:
    saliency = {"iou": 0.512, "iou_ci": [0.4, 0.6]}
    assert dvc_metrics({"saliency": saliency, "gradcam": {"iou": 0.3, "iou_ci": [0.2, 0.4]}}) == {"map_iou": 0.3}
    assert dvc_metrics({"saliency": saliency}) == {"map_iou": 0.51}
    assert dvc_metrics({"saliency": {"iou": None, "iou_ci": None}}) == {}

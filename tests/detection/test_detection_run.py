"""A whole cell on small images: the files that it writes, and predictions with its guard."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

import medrobust
from medrobust.core.calibration import fit_temperature
from medrobust.core.errors import UserError
from medrobust.core.params.detection import DetectParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import read_json, read_metrics, read_table, write_json
from medrobust.detection.fitting import Splits, fit_guard
from medrobust.detection.guard import load_guard, save_guard
from medrobust.detection.registry import DETECTORS
from medrobust.detection.run import DetectionOutputs, dvc_metrics, run_detection
from medrobust.inference.predict import Prediction, predict
from medrobust.models import checkpoint
from medrobust.models.classifier import Classifier
from tests.params import default_block
from tests.small import make_classifier

#: What the metrics say that they were made on.
MADE = {"weights": "w"}
REPORT = ReportParams(title="t", bootstrap=40, confidence=0.9, pictures=True, cases=0, repeated=[])
ALL = {"dropout": {"rate": 0.3, "samples": 3}, "lid": {"neighbours": 5, "reference": 30}}
DETECTORS_SET = {name: ALL.get(name, {}) for name in DETECTORS}
NO_ADAPTIVE = {"attacks": ["joint"], "images": 0, "steps": 1, "searches": 1}
ATTACKS = ["joint", "orthogonal", "matching", "ind", "ood"]


def settings(**changes: Any) -> DetectParams:
    values: dict[str, Any] = {"detectors": DETECTORS_SET, "suites": {"pgd": 0.1, "fgsm": 0.1}}
    values |= {"seen": "pgd", "adaptive": {"attacks": ATTACKS, "images": 12, "steps": 4, "searches": 2}}
    return default_block(DetectParams, "detect", **{**values, **changes})


@pytest.fixture(scope="module")
def plan(suite: dict[str, Any]) -> dict[str, Any]:
    one = {"name": "fgsm", "hyperparameters": {}}
    resolved = {"pgd": suite, "fgsm": {**suite, "name": "fgsm", "attacks": [one]}}
    return {"suites": resolved}


@pytest.fixture(scope="module")
def cell(model: Classifier, splits: Splits, plan: dict[str, Any], tmp_path_factory: Any) -> Path:
    folder = Path(tmp_path_factory.mktemp("cell"))
    out = DetectionOutputs(folder / "guard", folder / "scores.parquet", folder / "metrics.json", folder / "plots")
    run_detection(model, splits, plan, out, ordered=True, params=settings(), report=REPORT, made_on=MADE)
    return folder


def test_every_number_of_unaware_attackers_has_one_of_aware_attackers(cell: Path) -> None:
    record = read_metrics(cell / "metrics.json")
    assert list(record["suites"]) == ["pgd", "fgsm"]
    for suite in record["suites"].values():
        assert set(suite) == {"eps", *DETECTORS}
        for name in DETECTORS:
            row = suite[name]
            assert 0 <= row["auroc_ci"][0] <= row["auroc"] <= row["auroc_ci"][1] <= 1
            assert set(row["adaptive"]) == {"unaware", "joint", "orthogonal", "matching", "ind", "worst"}
            worst, unaware = row["adaptive"]["worst"], row["adaptive"]["unaware"]
            assert worst["success"] >= unaware["success"]
            assert worst["evasion"]["0.05"] >= unaware["evasion"]["0.05"]
    assert set(record["ood"]) == {"n", "reached", *DETECTORS}


def test_the_attack_that_supervised_detectors_have_seen_is_marked(cell: Path) -> None:
    suites = read_metrics(cell / "metrics.json")["suites"]
    for name in ("lid", "dfeat"):
        assert (suites["pgd"][name]["seen"], suites["fgsm"][name]["seen"]) == (True, False)
    assert "seen" not in suites["pgd"]["gmm"]


def test_thresholds_are_those_of_clean_validation_images(cell: Path, splits: Splits, model: Classifier) -> None:
    scores = read_table(cell / "scores.parquet")
    record = read_metrics(cell / "metrics.json")["suites"]["pgd"]["gmm"]
    clean = scores[scores["images"] == "clean"]
    assert len(clean) == len(splits.test)
    assert record["test_fpr"] == pytest.approx((clean["score_gmm"] > record["threshold"]).mean(), abs=1e-3)
    low, high = record["test_fpr_ci"]
    assert low <= record["test_fpr"] <= high
    assert set(record["false_alarms"]) == {"0.01", "0.05", "0.1"}
    assert record["false_alarms"]["0.05"] == {"rate": record["test_fpr"], "ci": [low, high]}
    answers = predict(splits.val.batch(range(len(splits.val))), model, cell / "guard", detector="gmm")
    assert np.mean([answer.rejected for answer in answers]) <= 0.05


def test_measures_by_class_are_of_successful_attacks(
    model: Classifier, splits: Splits, plan: dict[str, Any], tmp_path: Path
) -> None:
    """In a ball so small that some attacks fail."""
    few = settings(detectors={"gmm": {}}, suites={"fgsm": 0.03}, seen=None, adaptive=NO_ADAPTIVE)
    out = DetectionOutputs(tmp_path / "g", tmp_path / "scores.parquet", tmp_path / "m.json", tmp_path / "plots")
    run_detection(model, splits, plan, out, ordered=True, params=few, report=REPORT, made_on={"weights": "w"})
    scores, record = read_table(out.scores), read_metrics(out.metrics)["suites"]["fgsm"]["gmm"]
    clean, attacked = (scores[scores["images"] == name].reset_index(drop=True) for name in ("clean", "fgsm"))
    hit = (clean["pred"] == clean["label"]) & (attacked["pred"] != attacked["label"])
    assert 2 < hit.sum() < len(hit) - 2
    for k, name in enumerate(splits.test.classes):
        good, bad = clean[clean["label"] == k]["score_gmm"], attacked[hit & (attacked["label"] == k)]["score_gmm"]
        area = None
        if len(bad):
            side = np.repeat([0, 1], [len(good), len(bad)])
            area = pytest.approx(average_precision_score(side, np.concatenate([good, bad])), abs=1e-5)
        assert record["per_class"][name]["auprc_attacked"] == area


def test_scores_of_every_image_and_curves_are_written(cell: Path, splits: Splits) -> None:
    scores = read_table(cell / "scores.parquet")
    assert set(scores["images"]) == {
        "clean", "pgd", "fgsm", "pgd+costly", "fgsm+costly", "ood",
        *(f"{s}+{a}" for s in ("pgd", "fgsm") for a in ATTACKS if a != "ood"),
    }  # fmt: skip
    assert not scores[scores["images"].isin(["clean", "pgd", "fgsm"])].isna().any().any()
    curves, risk, costs = (read_table(cell / "plots" / f"{name}.csv") for name in ("curves", "risk", "costs"))
    assert set(curves["detector"]) == set(risk["detector"]) == set(costs["detector"]) == set(DETECTORS)
    assert set(risk["unit"]) == {"image", "patient"}


def test_a_second_run_writes_the_same(
    cell: Path, model: Classifier, splits: Splits, plan: dict[str, Any], tmp_path: Path
) -> None:
    few = settings(detectors={"gmm": {}, "lid": ALL["lid"]}, suites={"pgd": 0.1})
    out = DetectionOutputs(
        tmp_path / "guard", tmp_path / "scores.parquet", tmp_path / "metrics.json", tmp_path / "plots"
    )
    run_detection(model, splits, plan, out, ordered=True, params=few, report=REPORT, made_on=MADE)
    first, second = (read_metrics(folder / "metrics.json")["suites"]["pgd"] for folder in (cell, tmp_path))
    assert {name: first[name] for name in ("gmm", "lid")} == {name: second[name] for name in ("gmm", "lid")}


@pytest.fixture(scope="module")
def guarded(model: Classifier, splits: Splits, plan: dict[str, Any], tmp_path_factory: Any) -> Path:
    """A guard's folder."""
    folder = Path(tmp_path_factory.mktemp("guard"))
    params = settings(detectors={"gmm": {}, "kde": {}}, fpr=0.1)
    save_guard(folder / "g", fit_guard(model, splits, plan, params, "w")[0])
    return folder / "g"


def test_an_image_unlike_all_training_images_is_rejected_with_reason_and_score(
    guarded: Path, model: Classifier, splits: Splits
) -> None:
    images = splits.test.batch(range(6))
    strange = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0)).round()
    answers: list[Prediction] = medrobust.predict(torch.cat([images, strange]), model, guarded)
    for answer in answers[6:]:
        assert answer.rejected
        assert answer.label is None
        assert answer.score is not None
        assert f"score {answer.score:.4g} is above" in answer.reason
        assert "10.0% of clean images" in answer.reason
    kept = [answer for answer in answers[:6] if not answer.rejected]
    assert kept
    for answer in kept:
        assert answer.label == max(answer.probabilities, key=lambda name: answer.probabilities[name])
        assert sum(answer.probabilities.values()) == pytest.approx(1)
        assert answer.reason == ""


def test_a_saved_guard_gives_the_same_answers(guarded: Path, model: Classifier, splits: Splits) -> None:
    images = splits.test.batch(range(8))
    one = [predict(images, model, load_guard(guarded), detector=name) for name in ("gmm", "kde")]
    assert one[0] == predict(images, model, guarded)  # the first detector is the default
    assert one[0] != one[1]
    for answer, alone in zip(one[1][3:5], predict(images[3:5], model, guarded, detector="kde"), strict=True):
        assert answer.score == pytest.approx(alone.score)


def test_without_a_guard_no_image_is_rejected(model: Classifier, splits: Splits) -> None:
    answers = predict(splits.test.batch(range(3)).numpy(), model)
    assert all(answer.label and not answer.rejected and answer.score is None for answer in answers)


def test_an_ensemble_can_be_guarded(model: Classifier, splits: Splits, plan: dict[str, Any]) -> None:
    from medrobust.models.ensemble import EnsembleClassifier

    vote = EnsembleClassifier([model, make_classifier().eval()], [0.7, 0.3]).eval()
    guard, _ = fit_guard(vote, splits, plan, settings(detectors={"mahalanobis": {}, "gmm": {}}), "w")
    answers = predict(splits.test.batch(range(4)), vote, guard)
    assert {name for answer in answers for name in answer.probabilities} == {"a", "b", "c"}
    strange = predict(torch.zeros(1, 1, 12, 12), vote, guard)[0]
    assert strange.rejected


def test_a_cell_of_an_ensemble_is_like_that_of_a_model(
    model: Classifier, splits: Splits, plan: dict[str, Any], tmp_path: Path
) -> None:
    from medrobust.models.ensemble import EnsembleClassifier

    vote = EnsembleClassifier([model, make_classifier().eval()], [0.7, 0.3]).eval()
    few = settings(detectors={"mahalanobis": {}, "gmm": {}}, suites={"pgd": 0.1}, seen=None)
    out = DetectionOutputs(
        tmp_path / "guard", tmp_path / "scores.parquet", tmp_path / "metrics.json", tmp_path / "plots"
    )
    run_detection(vote, splits, plan, out, ordered=True, params=few, report=REPORT, made_on=MADE)
    row = read_metrics(tmp_path / "metrics.json")["suites"]["pgd"]["gmm"]
    assert row["adaptive"]["worst"]["evasion"]["0.05"] >= row["adaptive"]["unaware"]["evasion"]["0.05"]
    assert set(row["risk"]) == {"image", "patient"}


def test_the_temperature_fixes_overconfidence() -> None:
    rng = torch.Generator().manual_seed(0)
    drawn = torch.randn(3000, 3, generator=rng)
    logits, labels = drawn.numpy(), torch.multinomial(drawn.softmax(1), 1, generator=rng).squeeze(1).numpy()
    assert fit_temperature(logits * 4, labels) == pytest.approx(4, rel=0.1)
    assert fit_temperature(logits, labels) == pytest.approx(1, rel=0.1)
    sure = np.eye(3)[np.arange(48) % 3]
    assert (
        fit_temperature(sure, np.arange(48) % 3) > 0.1
    )  # all predictions are right: confident, but not more than 49 in 50


def test_few_images_are_picked_evenly(splits: Splits) -> None:
    some = splits.test.evenly_spaced(9)
    assert len(some) == 9
    assert len(set(some.patients)) == 9
    assert len(splits.test.evenly_spaced(10**6)) == len(splits.test)


def test_bad_requests_are_named(
    guarded: Path, model: Classifier, splits: Splits, plan: dict[str, Any], tmp_path: Path
) -> None:
    images = splits.test.batch(range(2))
    with pytest.raises(UserError, match=r"the guard has no 'lid'.*gmm, kde"):
        predict(images, model, guarded, detector="lid")
    with pytest.raises(UserError, match=r"values from \d+ to \d+.*divide 8-bit pixels by 255"):
        predict(images * 255, model, guarded)
    with pytest.raises(UserError, match=r"shape \(1, 12, 12\)"):
        predict(images[0], model, guarded)
    with pytest.raises(UserError, match=r"shape \(0, 1, 12, 12\).*n above 0"):
        predict(images[:0], model, guarded)
    with pytest.raises(UserError, match="values from nan"):
        predict(torch.full_like(images, torch.nan), model, guarded)
    with pytest.raises(UserError, match="no such file"):
        predict(images, model, tmp_path)
    with pytest.raises(UserError, match=r"detect\.seen: null, but lid is supervised"):
        fit_guard(model, splits, plan, settings(detectors={"lid": {}}, seen=None), "w")


def test_the_guard_of_another_model_is_refused(guarded: Path, splits: Splits, tmp_path: Path) -> None:
    from medrobust.core.params.training import ModelParams
    from medrobust.models.build import build_classifier

    block = ModelParams(timm="resnet10t", weights="none", image_size=32)
    checkpoint.save(tmp_path / "m", build_classifier(block, ["a", "b", "c"]), block, {})
    with pytest.raises(UserError, match="is the guard of another model: it was fitted to other weights"):
        predict(splits.test.batch([0]), tmp_path / "m", guarded)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("os:system", {}, r"detectors\.os:system: no detector 'os:system'.*gmm"),
        ("gmm", {"components": "os.system"}, r"detectors\.gmm\.components: got 'os\.system'"),
        ("gmm", {"state": {}}, r"detectors\.gmm\.state: unknown hyper-parameter"),
    ],
)
def test_a_card_cannot_make_other_code_run(
    name: str, settings: dict[str, Any], message: str, guarded: Path, tmp_path: Path
) -> None:
    shutil.copytree(guarded, tmp_path / "g")
    card = read_json(tmp_path / "g" / "card.json")
    assert set(card["detectors"]["gmm"]) == {"settings", "threshold", "middle", "spread"}
    card["detectors"] = {name: card["detectors"]["gmm"] | {"settings": settings, "kind": "os:system"}}
    write_json(tmp_path / "g" / "card.json", card)
    with pytest.raises(UserError, match=message):
        load_guard(tmp_path / "g")


def test_ind_needs_a_density(model: Classifier, splits: Splits, plan: dict[str, Any], tmp_path: Path) -> None:
    params = settings(
        detectors={"squeeze": {}}, adaptive={"attacks": ["ind"], "images": 4, "steps": 1, "searches": 2}
    )
    out = DetectionOutputs(tmp_path / "g", tmp_path / "s.parquet", tmp_path / "m.json", tmp_path / "p")
    with pytest.raises(UserError, match=r"detect\.adaptive\.attacks: `ind` has no density.*gmm, kde"):
        run_detection(model, splits, plan, out, ordered=True, params=params, report=REPORT, made_on=MADE)


def test_dvc_shows_the_worst_suite_of_the_detector_that_rejects() -> None:
    def row(auroc: float | None, aware: float | None = None) -> dict[str, Any]:
        found = {"auroc": 0.99, "successful_auroc": aware, "successful_auroc_ci": [0.2, 0.4]}
        worst = {} if aware is None else {"adaptive": {"worst": found}}
        hit = {"auroc": None} if auroc is None else {"auroc": auroc, "auroc_ci": [0.6, 0.8]}
        return {"auroc": 0.99, "successful": hit, **worst}

    other = row(0.1, 0.1)
    suites = {
        "a": {"eps": 0.1, "first": row(0.9, 0.312), "other": other},
        "b": {"eps": 0.1, "first": row(0.701, 0.5), "other": other},
        "c": {"eps": 0.1, "first": row(None), "other": other},
    }
    assert dvc_metrics({"suites": suites}, "first") == {"auroc": 0.7, "auroc_aware": 0.31}
    assert dvc_metrics({"suites": {"b": {"first": row(0.701)}}}, "first") == {"auroc": 0.7}
    assert dvc_metrics({"suites": {"c": {"first": row(None)}}}, "first") == {}

"""Repeated runs: a clone per seed or fold, one table of all, and the pooled patients of the folds."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON
from medrobust.core.params.schema import Params, check_params
from medrobust.core.records import write_json, write_metrics, write_table
from medrobust.report.provenance import Provenance
from tests.params import preset, save
from tests.report.runs import write_run
from tools import repeat
from tools.repeat import how_to_show, prepare_clone, settings_of
from tools.repeated_results import class_counts, collect_results, pooled_patients, summarise


def params(*names: str, suite: str = "s") -> Params:
    """The smoke preset with these backbones, or with `net`, and one suite."""
    content = preset("smoke")
    model = {"timm": "resnet10t", "weights": "none", "image_size": 32}
    content["models"] = dict.fromkeys(names or ["net"], model)
    content["ensemble"]["members"] = []
    content["attacks"]["suites"] = {
        suite: {"norm": "Linf", "eps": [0.01, 0.02], "attacks": [{"name": "fgsm"}]},
    }  # fmt: skip
    content["detect"]["suites"] = {suite: 0.02}
    content["detect"]["seen"] = None
    content["transfer"].update(suite=suite, eps=0.02)
    content["explain"].update(suite=suite, eps=0.02)
    content["attacks"]["surrogates"] = []
    content["patient"]["suites"] = [suite]
    content["external"]["sets"] = {}
    return check_params(content, "params.yaml")


def test_runs_are_named_by_seed_or_fold() -> None:
    assert settings_of("seeds", params(), [3, 1]) == {"seed-3": {"seed": 3}, "seed-1": {"seed": 1}}
    folds = settings_of("folds", params(), [])
    assert list(folds) == [f"fold-{k}" for k in range(5)]
    assert folds["fold-2"] == {"split.strategy": "kfold", "split.folds": 5, "split.fold": 2}


def test_published_folds_stay_those_of_the_publisher() -> None:
    content = preset("smoke")
    content["split"].update(strategy="published_folds", folds=3)
    folds = settings_of("folds", check_params(content, "params.yaml"), [])
    assert list(folds) == ["fold-0", "fold-1", "fold-2"]
    assert folds["fold-1"]["split.strategy"] == "published_folds"


def test_the_last_classes_are_merged_step_by_step() -> None:
    runs = settings_of("classes", params(), [])
    assert list(runs) == ["classes-2", "classes-3", "classes-4"]
    both = {"MildDemented": "VeryMildDemented", "ModerateDemented": "VeryMildDemented"}
    assert runs["classes-2"] == {"split.small_class": "merge", "split.merge": both}
    assert runs["classes-3"]["split.merge"] == {"ModerateDemented": "MildDemented"}
    assert runs["classes-4"] == {"split.merge": {}}
    merged = preset("smoke")
    merged["split"].update(small_class="merge", merge=both)
    with pytest.raises(UserError, match=r"split\.merge: merges MildDemented, Moder.*number of classes is fixed"):
        settings_of("classes", check_params(merged, "params.yaml"), [])


def test_the_table_of_class_counts_starts_with_guessing(tmp_path: Path) -> None:
    runs = {f"classes-{k}": collect_results(finished(tmp_path / str(k), -0.05 * k), params()) for k in (2, 3, 4)}
    first, *others = class_counts(runs)
    assert [first[f"classes-{k}"] for k in (2, 3, 4)] == [0.5, 0.333, 0.25]
    row = next(row for row in others if (row["model"], row["measure"]) == ("net-adv", "s 0.01 balanced_accuracy"))
    assert [row[f"classes-{k}"] for k in (2, 3, 4)] == [0.3, 0.25, 0.2]
    assert "mean" not in row


@pytest.mark.parametrize("seeds", [[], [1], [1, 1]])
def test_one_seed_is_no_repetition(seeds: list[int]) -> None:
    with pytest.raises(UserError, match=r"SEEDS: got .*two or more different seeds"):
        settings_of("seeds", params(), seeds)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A committed repository with params.yaml and data beside it."""
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    content = preset("smoke")
    content["data"]["path"] = "images"
    content["models"] = {"net": {"timm": "resnet10t", "weights": "files/net.pth", "image_size": 32}}
    save(root, content)
    (root / "files").mkdir()
    (root / "files" / "net.pth").write_text("weights")
    (root / ".pseudonym-key").write_text("secret")
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (root / ".gitignore").write_text("/tmp\n/images\n/files\n/.pseudonym-key\n.dvc/config.local\n")
    (root / "images").mkdir()
    (root / "images" / "one.txt").write_text("pixels")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "start"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *command], cwd=root, check=True)
    return root


def test_a_clone_changes_one_value_and_shares_cache_and_data(project: Path) -> None:
    before = (project / "params.yaml").read_text().splitlines()
    clone = prepare_clone(project, "fold-1", {"split.fold": 1})
    after = (clone / "params.yaml").read_text().splitlines()
    changed = [
        (old.split("#")[0].strip(), new.split("#")[0].strip())
        for old, new in zip(before, after, strict=True)
        if old != new
    ]
    assert changed == [("fold: 0", "fold: 1")]
    assert str(project / ".dvc" / "cache") in (clone / ".dvc" / "config.local").read_text()
    assert (clone / "images" / "one.txt").read_text() == "pixels"
    assert (clone / "files" / "net.pth").read_text() == "weights"
    assert (clone / ".pseudonym-key").read_text() == "secret"
    (clone / "tmp").mkdir()
    (clone / "tmp" / "resume").touch()
    again = prepare_clone(project, "fold-1", {"split.fold": 2})
    assert again == clone
    assert (clone / "tmp" / "resume").exists()
    assert "fold: 2" in (clone / "params.yaml").read_text()


def test_uncommitted_changes_are_refused(project: Path) -> None:
    save(project, {**preset("smoke"), "seed": 7})
    with pytest.raises(UserError, match=r"uncommitted changes \(M params\.yaml\).*Commit them first"):
        prepare_clone(project, "seed-1", {"seed": 1})


def test_a_table_that_a_command_wrote_does_not_stop_its_next_run(project: Path) -> None:
    """`make replay` writes the table after its first column, and again when it continues."""
    table = project / repeat.TABLES / "replay-x.csv"
    table.parent.mkdir(parents=True)
    table.write_text("model\n")
    for command in (
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "table"],
    ):
        subprocess.run(["git", *command], cwd=project, check=True)
    table.write_text("model\nnet\n")
    clone = prepare_clone(project, "x-corrected", {"seed": 3})
    assert (clone / repeat.TABLES / "replay-x.csv").read_text() == "model\n"


def finished(folder: Path, shift: float) -> Path:
    """A folder with the metrics of one run, whose values rise with the shift."""

    def write(path: Path, record: dict[str, Any]) -> None:
        write_metrics(folder / "metrics" / path, {**record, MADE_ON: {"models": {}}}, {})

    for unit, clean, attacked in (("image", "train", "attack"), ("patient", "patients", "attack_patient")):
        for regime in ("clean", "adv"):
            record = {"balanced_accuracy": 0.5 + shift, "auroc": None if unit == "image" else 0.6 + shift}
            write(Path(clean) / f"net-{regime}.json", record)
            under: dict[str, Any] = {"robust_balanced_accuracy": {"0.01": 0.4 + shift, "0.02": 0.2 + shift}}
            write(Path(attacked) / f"net-{regime}-s.json", {**under, "robust_accuracy": {}})
    write(Path("ensemble.json"), {"balanced_accuracy": 0.7 + shift})
    write(Path("attack/ensemble-adv-s.json"), {"robust_balanced_accuracy": {"0.01": 0.3}, "robust_accuracy": {}})
    return folder


def test_the_table_has_mean_spread_and_worst(tmp_path: Path) -> None:
    runs = {f"seed-{k}": collect_results(finished(tmp_path / str(k), 0.1 * k), params()) for k in range(3)}
    rows = {(row["unit"], row["model"], row["measure"]): row for row in summarise(runs)}
    row = rows["patient", "net-adv", "clean auroc"]
    assert (row["mean"], row["sd"], row["worst"], row["runs"]) == (0.7, 0.1, 0.6, 3)
    assert [row[f"seed-{k}"] for k in range(3)] == [0.6, 0.7, 0.8]
    assert rows["image", "net-clean", "s 0.02 balanced_accuracy"]["mean"] == 0.3
    assert rows["image", "ensemble-adv", "clean balanced_accuracy"]["worst"] == 0.7
    assert ("image", "net-clean", "clean auroc") not in rows
    assert "own" not in row


def test_the_table_has_the_numbers_of_the_run_that_was_repeated(tmp_path: Path) -> None:
    runs = {f"fold-{k}": collect_results(finished(tmp_path / str(k), 0.1 * k), params()) for k in range(2)}
    own = collect_results(finished(tmp_path / "own", 0.0123), params())
    del own["patient", "net-adv", "clean auroc"]
    rows = {(row["unit"], row["model"], row["measure"]): row["own"] for row in summarise(runs, own)}
    assert rows["image", "net-clean", "clean balanced_accuracy"] == 0.512
    assert rows["patient", "net-adv", "clean auroc"] is None


def test_numbers_of_a_run_that_is_out_of_date_are_not_those_of_this_run(tmp_path: Path) -> None:
    write_run(tmp_path)
    found = params("one", "two", suite="pgd")
    key = ("patient", "one-adv", "clean balanced_accuracy")
    assert collect_results(tmp_path, found, Provenance.of(tmp_path / "dvc.lock"))[key] == 0.75
    (tmp_path / "params.yaml").write_text("seed: 2\nadv: {eps: 0.01}\n")
    assert collect_results(tmp_path, found, Provenance.of(tmp_path / "dvc.lock")) == {}
    assert collect_results(tmp_path, found)[key] == 0.75


def test_the_command_tells_how_the_report_shows_its_table() -> None:
    default = check_params(preset(), "params.yaml")
    assert how_to_show("seeds", Path("docs/tables/seeds.csv"), default) == "`make repro` shows it in the report"
    sentence = "To show it in the report, add {over: folds, file: f.csv} to report.repeated in params.yaml"
    assert how_to_show("folds", Path("f.csv"), default) == sentence


def test_pooled_patients_are_calibrated_per_fold(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clones, everything = [], []
    for fold, sharpness in enumerate((1.0, 20.0)):  # the second fold's model is far too confident
        clone = tmp_path / str(fold)
        labels = np.arange(40) % 2
        logits = rng.normal(size=(40, 2)) + np.eye(2)[labels]
        logprobs = logits * sharpness - np.log(np.exp(logits * sharpness).sum(1, keepdims=True))
        table = pd.DataFrame({
            "patient": [f"f{fold}p{k}" for k in range(40)], "label": labels, "pred": logits.argmax(1),
            "split": ["val"] * 20 + ["test"] * 20, "logprob_0": logprobs[:, 0], "logprob_1": logprobs[:, 1],
        })  # fmt: skip
        for regime in ("clean", "adv"):
            write_table(clone / "data/predictions/patients" / f"net-{regime}.parquet", table)
        write_json(clone / "data/prepared/header.json", {"ordered": False})
        clones.append(clone)
        everything.append((logits[20:], labels[20:]))
    rows = {(row["model"], row["measure"]): row for row in pooled_patients(clones, params())}
    row = rows["net-clean", "clean auroc, 40 patients pooled"]
    labels = np.concatenate([part[1] for part in everything])
    gaps = [part[0][:, 1] - part[0][:, 0] for part in everything]
    raw = roc_auc_score(labels, np.concatenate([gap * scale for gap, scale in zip(gaps, (1, 20), strict=True)]))
    even = roc_auc_score(labels, np.concatenate(gaps))
    assert abs(row["mean"] - even) < abs(raw - even) + 0.02
    assert row["low"] <= row["mean"] <= row["high"]
    predicted = np.concatenate([part[0].argmax(1) for part in everything])
    accuracy = rows["net-clean", "clean balanced_accuracy, 40 patients pooled"]["mean"]
    assert abs(accuracy - balanced_accuracy_score(labels, predicted)) < 1e-3


def test_pooled_patients_without_one_class_have_no_auroc(tmp_path: Path) -> None:
    table = pd.DataFrame({
        "patient": [f"p{k}" for k in range(8)], "label": [0, 1] * 4, "split": ["val"] * 4 + ["test"] * 4,
        "pred": [0, 1] * 4, "logprob_0": np.log([0.6, 0.3] * 4), "logprob_1": np.log([0.3, 0.6] * 4),
        "logprob_2": np.log(0.1),
    })  # fmt: skip
    for regime in ("clean", "adv"):
        write_table(tmp_path / "data/predictions/patients" / f"net-{regime}.parquet", table)
    write_json(tmp_path / "data/prepared/header.json", {"ordered": False})
    measures = [row["measure"] for row in pooled_patients([tmp_path], params())]
    assert measures == ["clean balanced_accuracy, 4 patients pooled"] * 2


def test_a_failed_run_ends_with_its_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr("sys.argv", ["repeat", "seeds", "--seeds", "1,2"])
    monkeypatch.setattr(repeat, "reproduce", lambda clone, jobs: False)
    with pytest.raises(SystemExit, match=r"seed-1 failed\. Run the command again to continue"):
        repeat.main()
    monkeypatch.setattr("sys.argv", ["repeat", "seeds", "--seeds", "1,x"])
    with pytest.raises(UserError, match="whole numbers"):
        repeat.main()

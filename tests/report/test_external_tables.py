"""The report shows the results of a model on its own test images and on external ones, side by side."""

from pathlib import Path
from typing import Any

import pytest

from medrobust.core.lineage import MADE_ON, suite_hash
from medrobust.core.records import write_metrics
from medrobust.report.evidence.items import FILLED, PARTLY, find_evidence
from medrobust.report.page.sections import EMPTY, sections
from medrobust.report.page.verdicts import verdicts
from medrobust.report.run import Run
from medrobust.report.tables.external import external_tables, external_text, read_external
from tests.report.runs import CLASSES, IMAGES, SETTINGS, SUITE, patient_record, read, weights, write_run

SUITES = {"pgd": suite_hash(SUITE)}
AUDIT = {"verdict": "leaking", "reasons": ["2 of 40 external images have an exact copy in train or val"]}


def record(**changes: Any) -> dict[str, Any]:
    """The record of a model on external images."""
    rates = {"robust_balanced_accuracy": 0.3, "robust_balanced_accuracy_ci": [0.2, 0.4]}
    clean = {"balanced_accuracy": 0.5, "balanced_accuracy_ci": [0.4, 0.6], "auroc": 0.7, "auroc_ci": [0.6, 0.8]}
    return {
        "n": 40, "patients": 20, "counts": {name: {"images": n, "patients": 5} for name, n in
                                            zip(CLASSES, (20, 12, 8), strict=True)},
        "clean": clean, "attacks": {"pgd": {"0.01": rates}}, "detectors": {}, "left_out": {"MCI": 3}, "skipped": 0,
        "patients_record": {"n": 20, "clean": clean, "attacks": {}}, **changes,
    }  # fmt: skip


def write(folder: Path, name: str, content: dict[str, Any], **made_on: Any) -> None:
    """Write a metrics file of external data."""
    write_metrics(folder / "metrics" / "external" / f"{name}.json", {**content, MADE_ON: made_on}, {})


def write_external(folder: Path) -> None:
    """Results of all models on the set b, and of one-adv on another set, from a file."""
    external = {"external": "e" * 64}
    write_metrics(folder / "metrics" / "external" / "sets.json", {"sets": ["b"], "evaluated": 1}, {})
    write(folder, "b-audit", AUDIT, **IMAGES, **external)
    for model in ("one-clean", "one-adv", "two-clean", "two-adv"):
        write(folder, f"b-{model}", record(), **IMAGES, **external, weights=weights(model), suites=SUITES)
    adopted = {**record(), "set": "far"}
    del adopted["patients_record"], adopted["left_out"]
    write(folder, "evaluated0", adopted, weights=weights("one-adv"), suites=SUITES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with results on external data."""
    write_run(tmp_path)
    write_external(tmp_path)
    return tmp_path


def collected(folder: Path, *, complete: bool = True) -> Run:
    """The run with the results on external data that the report reads."""
    run = read(folder)
    read_external(run, folder / "metrics", complete=complete)
    return run


def rows(run: Run, title: str) -> list[list[str]]:
    """The rows of the table with a title."""
    return next(table.rows for table in external_tables(run, 0.95) if table.title == title)


def test_each_measure_stands_beside_that_of_the_own_test_images(folder: Path) -> None:
    run = collected(folder)
    run.patients.records["one", "clean"] = patient_record()
    run.attacks.records["one", "clean", "pgd"]["robust_balanced_accuracy_ci"] = {"0.01": [0.1, 0.3]}
    own = {row[2]: row[3:] for row in rows(run, "External data: b") if row[:2] == ["one", "clean"]}
    # 0.5 [0.4, 0.6] minus 0.6 [0.5, 0.9]: ends at 0.1 ± the root of the squared distances (Zou & Donner 2008).
    assert own["balanced accuracy"] == ["0.600 [0.500, 0.900]", "0.500 [0.400, 0.600]", "-0.100 [-0.416, 0.041]"]
    assert own["balanced accuracy, pgd ε 0.01"] == [
        "0.200 [0.100, 0.300]", "0.300 [0.200, 0.400]", "0.100 [-0.041, 0.241]",
    ]  # fmt: skip
    assert own["AUROC"][1] == "0.700 [0.600, 0.800]"
    assert own["balanced accuracy, by patient"][:2] == ["0.750 [0.600, 0.900]", "0.500 [0.400, 0.600]"]
    assert own["AUROC, by patient"][2] == "-0.150 [-0.291, 0.030]"
    assert "b: 40 images of 20 patients; 3 images left out by their label; audit: leaking." in external_text(run)


def test_a_file_of_the_command_has_a_table_and_no_audit(folder: Path) -> None:
    run = collected(folder)
    *found, balanced, auroc = rows(run, "External data: far")
    assert {(row[0], row[1]) for row in found} == {("one", "adversarial")}
    assert balanced == ["constant answer", "–", "balanced accuracy", "0.333", "0.333", "0.000"]
    assert auroc == ["constant answer", "–", "AUROC", "0.500", "0.500", "0.000"]
    text = external_text(run)
    assert len(text) == 2
    assert text[1].startswith("far: 40 images of 20 patients; evaluated without the pipeline, so that no audit")
    cards = {card["of"]: card for card in verdicts(run)}
    assert (cards["External data: b"]["verdict"], cards["External data: b"]["tone"]) == ("leaking", "bad")
    assert cards["External data: b"]["reasons"] == AUDIT["reasons"]
    assert "External data: far" not in cards
    run.external["b"].audit.update(verdict="clean", reasons=[])
    clean = next(card for card in verdicts(run) if card["of"] == "External data: b")
    assert (clean["tone"], len(clean["reasons"])) == ("good", 1)
    assert "no image has a copy among the own images" in clean["reasons"][0]


def test_shares_of_the_classes_are_compared(folder: Path) -> None:
    found = rows(collected(folder), "Classes: own test images and b")
    assert [row[0] for row in found] == CLASSES
    assert [row[4:] for row in found] == [["20", "5", "0.500"], ["12", "5", "0.300"], ["8", "5", "0.200"]]
    assert sum(float(row[3]) for row in found) == pytest.approx(1, abs=2e-3)


def test_without_all_classes_there_is_no_difference(folder: Path) -> None:
    counts = {**record()["counts"], "Mild": {"images": 0, "patients": 0}}
    made_on = {**IMAGES, "external": "e" * 64, "weights": weights("one-clean"), "suites": SUITES}
    write(folder, "b-one-clean", record(counts=counts), **made_on)
    run = collected(folder)
    own = [row for row in rows(run, "External data: b") if row[:2] == ["one", "clean"]]
    assert {row[5] for row in own} == {"–"}
    assert "no image of Mild, so that no difference is shown" in external_text(run)[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weights": "f" * 64}, "it was made on weights other than this model's"),
        ({"external": "f" * 64}, "it was made on other external images"),
        ({"suites": {"pgd": "f" * 64}}, "it was made on another suite of attacks"),
        ({"split": "f" * 16}, "it was made on another split"),
    ],
)
def test_results_of_another_run_are_left_out(change: dict[str, Any], reason: str, folder: Path) -> None:
    made_on = {**IMAGES, "external": "e" * 64, "weights": weights("one-clean"), "suites": SUITES}
    write(folder, "b-one-clean", record(), **{**made_on, **change})
    run = collected(folder)
    path = folder / "metrics" / "external" / "b-one-clean.json"
    assert run.foreign == {str(path): reason}
    assert ("one", "clean") not in run.external["b"].records


def test_a_file_of_no_model_of_the_run_is_left_out_and_named_where_all_models_are_known(folder: Path) -> None:
    write(folder, "evaluated0", {**record(), "set": "far"}, weights="f" * 64, suites=SUITES)
    run = collected(folder)
    assert list(run.foreign.values()) == ["it was made on weights other than this model's"]
    assert "far" not in run.external
    assert collected(folder, complete=False).foreign == {}


def test_missing_files_are_listed(folder: Path) -> None:
    (folder / "metrics" / "external" / "b-one-clean.json").unlink()
    assert [Path(path).name for path in collected(folder).missing] == ["b-one-clean.json"]


def test_the_items_on_external_data_are_filled(folder: Path) -> None:
    parts = sections(collected(folder), SETTINGS)
    assert [part.title for part in parts if part.name == "external"] == ["External data"]
    found = {
        item.item: item for items in find_evidence(collected(folder), parts, EMPTY).values() for item in items
    }
    assert (found["CLAIM 33"].status, found["CLAIM 33"].where) == (FILLED, "External data (#external)")
    for name in ("TRIPOD+AI 12d", "TRIPOD+AI 23b"):
        assert found[name].status == PARTLY, name
        assert found[name].where.startswith("between own and external data: External data (#external); missing: ")
    assert found["TRIPOD+AI 16"].where.startswith("outcome: Classes: own test images and b (#external); missing: ")
    without = sections(read(folder), SETTINGS)
    assert not [part for part in without if part.name == "external"]

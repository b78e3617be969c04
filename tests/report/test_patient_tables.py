"""Tables by patient: what leads the page, the constant answer, and data without a patient unit."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from medrobust.data.store import Header
from medrobust.report.page.sections import sections
from medrobust.report.run import Patients, Run
from medrobust.report.tables.accuracy import attack_table, backbone_table, short_table
from medrobust.report.tables.patients import (
    few_images_table,
    no_patient_unit,
    patient_attack_tables,
    patient_short_table,
)
from tests.report.runs import SETTINGS, attack_record, patient_record


def attacked(**changes: Any) -> dict[str, Any]:
    return {
        **attack_record(), "robust_auroc": {"0.005": 0.6, "0.01": 0.3},
        "robust_auroc_ci": {"0.005": [0.5, 0.7], "0.01": [0.2, 0.4]},
        "robust_balanced_accuracy_ci": {"0.005": [0.3, 0.5], "0.01": [0.1, 0.3]}, **changes,
    }  # fmt: skip


def header(names: list[str]) -> dict[str, Any]:
    return asdict(Header("phantom", names, False, 8, 1, 80, 20, {}, "MIT", "", "", "d"))


def run(classes: int = 2) -> Run:
    names = ["well", "ill", "worse"][:classes]
    found = Run(["net"], ["pgd"], header=header(names), patients=Patients(("pgd",)))
    counts, patients = (dict(zip(names, each[:classes], strict=True)) for each in ((60, 20, 0), (12, 8, 0)))
    found.split.update({"test": {**counts, "images": 80, "patients": 20, "patients_by_class": patients}})
    found.patients.records["net", "clean"] = patient_record()
    found.patients.attacks["net", "clean", "pgd"] = attacked()
    found.attacks.records["net", "clean", "pgd"] = attack_record()
    return found


def test_the_table_by_patient_leads_the_page() -> None:
    glance = sections(run(), SETTINGS)[0]
    table = glance.filled[0]
    assert table.title == "Results by patient"
    assert table.rows[0] == [
        "net", "clean", "0.750 [0.600, 0.900]", "0.850 [0.700, 0.950]", "0.400 [0.300, 0.500]",
        "0.600 [0.500, 0.700]",
    ]  # fmt: skip
    assert "test patients, from 3 to 4 images (aggregate: mean)" in " ".join(table.note.split())


def test_an_auroc_of_one_has_no_interval_and_says_so() -> None:
    found = run()
    assert "width" not in patient_short_table(found, 0.95).note
    found.patients.records["net", "clean"] = patient_record(auroc=1.0, auroc_ci=[1.0, 1.0])
    assert "width" in patient_short_table(found, 0.95).note


def test_the_constant_answer_stands_in_every_table() -> None:
    found = run()
    assert patient_short_table(found, 0.95).rows[-1] == [
        "constant answer",
        "–",
        "0.500",
        "0.500",
        "0.500",
        "0.500",
    ]
    (by_patient,) = patient_attack_tables(found, 0.95)
    assert by_patient.rows[-1] == ["constant answer", "–", "0.600", "0.600", "0.600"]  # 12 of 20 patients
    assert attack_table(found, "pgd", 0.95).rows[-1] == ["constant answer", "–", "0.750", "0.750", "0.750", "–"]
    assert short_table(found).rows[-1] == ["constant answer", "–", "0.500", "0.750", "0.750"]
    cells = dict(zip((table := backbone_table(found, "net", 0.95)).columns, table.rows[-1], strict=True))
    known = {name: cells[name] for name in ("training", "ε", "accuracy", "balanced accuracy", "AUROC", "log-loss")}
    assert list(known.values()) == ["constant answer", "–", "0.750", "0.500", "0.500", "–"]


def test_more_than_two_classes_have_no_auroc_under_attack() -> None:
    found = run(3)
    found.split["test"]["worse"] = 10
    table = patient_short_table(found, 0.95)
    assert table.columns == [
        "model",
        "training",
        "balanced accuracy",
        "AUROC",
        "pgd: balanced accuracy",
    ]
    assert table.rows[-1][2] == "0.333"


def test_an_attacker_of_some_images_has_a_column_per_number() -> None:
    table = few_images_table(run(), 0.95)
    assert table.columns[2:] == ["none changed", "1 changed", "10 changed"]
    assert table.rows == [
        ["net", "clean", "0.800", "0.700 [0.500, 0.800]", "0.400 [0.200, 0.600]"],
        ["constant answer", "–", "0.600", "0.600", "0.600"],  # 12 of 20 patients
    ]


@pytest.mark.parametrize("reason", ["3 of 9 images have no patient id", "patient.aggregate is none"])
def test_without_a_patient_unit_the_page_says_why(reason: str) -> None:
    found = run()
    found.patients.records["net", "clean"] = {"not_fitted": reason}
    found.patients.attacks["net", "clean", "pgd"] = {"not_fitted": reason}
    assert no_patient_unit(found) == reason
    glance = sections(found, SETTINGS)[0]
    assert [table.title for table in glance.filled] == ["Results"]
    assert f"There are no results by patient: {reason}." in glance.text
    assert "patients" not in [section.name for section in sections(found, SETTINGS)]


def test_a_suite_of_attacks_on_single_images_says_why_it_has_no_numbers() -> None:
    found = replace(run(), suites=["pgd", "region"])
    found = replace(found, patients=replace(found.patients, suites=("pgd", "region")))
    found.patients.attacks["net", "clean", "region"] = {
        "not_fitted": "bim with mask: gradcam acts on single images"
    }
    assert patient_short_table(found, 0.95).rows[0][-2:] == ["–", "–"]
    assert [table.title for table in patient_attack_tables(found, 0.95)] == ["Patients under attack: pgd"]
    sentence = "Suite region does not attack patients: bim with mask: gradcam acts on single images."
    settings = replace(SETTINGS, norms={"pgd": "Linf", "region": "Linf"})
    assert [part.text for part in sections(found, settings) if part.name == "patients"] == [[sentence]]


def test_a_missing_attack_is_named() -> None:
    found = run()
    found.patients.attacks.clear()
    assert patient_short_table(found, 0.95).rows[0][-2:] == ["missing", "missing"]

"""The origin of the images, how far it was verified, and what was left out."""

from pathlib import Path
from typing import Any

from medrobust.core.records import read_json, read_metrics, write_json
from medrobust.report.page.render import page_content, render_html
from medrobust.report.tables.data import audit_reasons, audit_table, data_text
from tests.report.runs import SETTINGS, read, write_record, write_run


def test_the_origin_has_what_was_verified(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert data_text(read(tmp_path)) == [
        "Source: phantom (https://x). Licence: MIT.", "Cite: A & B.",
        "Verified against the publication: nothing."
    ]  # fmt: skip
    path = tmp_path / "data" / "prepared" / "header.json"
    write_json(path, {**read_json(path), "url": "", "verified": "class counts of the release of 2018"})
    run = read(tmp_path)
    verified = "Verified against the publication: class counts of the release of 2018."
    assert data_text(run)[0] == "Source: phantom. Licence: MIT."
    assert data_text(run)[2] == verified
    assert verified in render_html(page_content(run, SETTINGS), {})


def test_left_out_images_are_listed(tmp_path: Path) -> None:
    write_run(tmp_path)
    path = tmp_path / "data" / "prepared" / "header.json"
    reasons = ["cannot be decoded", "blank", "cannot be decoded"]
    skipped = [{"id": f"{number}.png", "reason": reason} for number, reason in enumerate(reasons)]
    unused = [{"reason": reason, "count": 2, "first": ["x"]} for reason in ("no row in the table", "ending .xml")]
    write_json(path, {**read_json(path), "skipped": skipped, "left_out": {"glioma": 4}, "unused": unused})
    split = read_metrics(tmp_path / "metrics" / "split.json")
    write_record(tmp_path / "metrics" / "split.json", {**split, "test": {**split["test"], "Severe": 0}})
    assert data_text(read(tmp_path))[3:] == [
        "3 images were skipped: cannot be decoded (2); blank (1).",
        "Files that were not read: 2 (no row in the table); 2 (ending .xml).",
        "Left out by their label (data.labels): 4 of glioma.",
        "No test image of Severe: no number of this report covers it.",
    ]
    assert data_text(read(tmp_path / "nothing")) == []


def test_reasons_do_not_name_files(tmp_path: Path) -> None:
    write_run(tmp_path)
    path = tmp_path / "data" / "prepared" / "header.json"
    skipped = [
        {"id": f"a/DOE_JOHN_{number}.dcm", "reason": f"cannot read {name}"}
        for number, name in enumerate(["/x/a/DOE_JOHN_0.dcm", "DOE_JOHN_1.dcm", "DOE_JOHN_2", "it"])
    ]
    write_json(path, {**read_json(path), "skipped": skipped})
    reasons = "cannot read (file) (2); cannot read /x/(file) (1); cannot read it (1)."
    assert data_text(read(tmp_path))[3] == f"4 images were skipped: {reasons}"


def test_of_many_reasons_the_first_are_named(tmp_path: Path) -> None:
    write_run(tmp_path)
    path = tmp_path / "data" / "prepared" / "header.json"
    skipped = [{"id": f"{number}.png", "reason": f"reason {number}"} for number in range(7)]
    write_json(path, {**read_json(path), "skipped": skipped})
    line = data_text(read(tmp_path))[3]
    assert line.startswith("7 images were skipped: reason 0 (1); ")
    assert line.endswith("reason 4 (1); 2 other reasons (header.json).")


def test_a_clean_audit_lists_what_was_searched_for_and_an_incomplete_one_does_not(tmp_path: Path) -> None:
    write_run(tmp_path)
    path = tmp_path / "metrics" / "audit.json"
    assert audit_reasons(read(tmp_path)) == ["2 of 7 test patients are also in train"]
    patients = {f"test_patients_in_{part}": 0 for part in ("train", "val")}
    copies = {f"{kind}_pairs_across_splits": 0 for kind in ("exact", "near")}
    clean: dict[str, Any] = {"verdict": "clean", "reasons": [], "test_patients": 7, "nn_gap": None}
    clean |= patients | copies | {"nn_accuracy": 0.5, "nn_accuracy_without_own_patient": 0.4}
    write_record(path, clean)
    reason = "none of 7 test patients is in train or validation, and no image has a copy in another split"
    assert audit_reasons(read(tmp_path)) == [reason]
    assert reason in render_html(page_content(read(tmp_path), SETTINGS), {})
    rows = dict(audit_table(read(tmp_path)).rows)
    assert rows["test patients"] == "7"
    assert rows["near pairs across splits"] == "0"
    assert "nn gap" not in rows
    assert rows["test patients in train"] == "0 of 7"
    assert rows["nn accuracy without own patient"] == "0.4"
    for key in (*patients, *copies):
        write_record(path, {**clean, key: 1})
        assert audit_reasons(read(tmp_path)) == []
        write_record(path, {**clean, key: None})
        assert audit_reasons(read(tmp_path)) == []

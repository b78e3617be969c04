"""Results by group: clean, corrupted and attacked, the largest gap, and groups that are too small to be shown."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from medrobust.attacks.engine.attempts import ATTEMPTS, table_of
from medrobust.core.lineage import MADE_ON, suite_hash
from medrobust.core.metrics import rate_estimates
from medrobust.core.params.corruptions import CorruptionsParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import read_json, read_table, write_json, write_table
from medrobust.data.store import read_manifest
from medrobust.report.page.render import page_content, render_markdown
from medrobust.report.run import Run
from medrobust.report.tables.corruptions import read_corruptions
from medrobust.report.tables.groups import Rate, _gap, difference, group_tables, read_groups
from tests.params import default_block
from tests.report.runs import (
    CLASSES,
    IMAGES,
    SETTINGS,
    SUITE,
    attack_record,
    read,
    weights,
    write_record,
)

#: Images of each of 24 patients; patients p0 to p11 are of site A, p12 to p20 of B, the last three of C.
SITES = ["A"] * 12 + ["B"] * 9 + ["C"] * 3


def predictions(wrong: set[int]) -> pd.DataFrame:
    """One image per patient; the classes take turns, and the patients in `wrong` are misclassified."""
    rows = [{"id": f"i{k}", "patient": f"p{k}", "label": k % 3, "pred": (k + (k in wrong)) % 3} for k in range(24)]
    table = pd.DataFrame(rows)
    return table.assign(**{f"logprob_{k}": np.where(table["pred"] == k, -0.2, -2.4) for k in range(3)})


@pytest.fixture
def grouped(folder: Path) -> Path:
    """A run whose images are of three sites; the first model errs at site B, and more so under attack."""
    data = folder / "data"
    table = predictions(set())
    manifest = table[["id", "patient"]].assign(
        sha256="", label=[CLASSES[k % 3] for k in range(24)], slice=1, kind="real", parent="", published_split="",
        site=SITES, age=["", *["60 to 75"] * 23],
    )  # fmt: skip
    write_table(data / "prepared" / "manifest.csv", manifest)
    header = read_json(data / "prepared" / "header.json")
    write_json(data / "prepared" / "header.json", {**header, "groups": ["site", "age"]})
    clean = predictions({12, 13, 14}).assign(split="test")
    extra = pd.DataFrame([{"id": "v", "patient": "v", "label": 0, "pred": 1, "split": "val"}])
    extra = extra.assign(logprob_0=-2.4, logprob_1=-0.2, logprob_2=-2.4)
    save(data / "predictions" / "one-clean.parquet", pd.concat([clean, extra]), "one-clean")
    attempts = [
        {
            **dict.fromkeys(ATTEMPTS, 0), "id": f"i{k}", "patient": f"p{k}", "label": k % 3, "attack": attack,
            "fooled": fooled, "distance": far, "eps": far,
        }
        for k in range(24)
        for attack, fooled, far in (
            ("natural", k in (12, 13, 14), 0.0), ("pgd", k >= 12, 0.004), ("stored", True, 0.001),
            ("pgd", k == 0, 0.005), ("pgd", True, 0.009),
        )
    ]  # fmt: skip
    save(data / "attacks" / "one-clean" / "pgd.parquet", table_of(attempts), "one-clean", suite_hash(SUITE))
    record = {**attack_record(), "robust_accuracy": {"0.005": 0.5}}  # the only radius that all models have
    write_record(folder / "metrics" / "attack" / "one-clean-pgd.json", record)
    return folder


def save(path: Path, table: pd.DataFrame, model: str, suite: str | None = None) -> None:
    table.attrs[MADE_ON] = {**IMAGES, "weights": weights(model), **({"suite": suite} if suite else {})}
    write_table(path, table)


def group(folder: Path) -> Run:
    run, data = read(folder), folder / "data"
    params = default_block(CorruptionsParams, "corruptions"), default_block(ReportParams, "report", bootstrap=50)
    read_corruptions(run, folder / "metrics", data / "corrupt", ["one"], *params)
    read_groups(run, data / "prepared")
    return run


def rows(run: Run) -> list[dict[str, str]]:
    table = group_tables(run, 0.95)[0]
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_each_group_has_its_images_patients_and_rates(grouped: Path) -> None:
    first, second, gap, constant, _ = rows(group(grouped))
    assert [first[key] for key in ("model", "training", "site", "n", "patients")] == [
        "one",
        "clean",
        "A",
        "12",
        "12",
    ]
    assert first["clean"].startswith("1.000 [")
    assert second["clean"].startswith("0.667 [")
    assert second["pgd, ε 0.005"].startswith("0.000 [")
    right = np.arange(12) > 0  # i0 is fooled at 0.005; 0.009 is outside, and `stored` does not count
    expected = rate_estimates(right, np.arange(12) % 3, np.arange(12).astype(str), CLASSES, confidence=0.95)
    value, (low, high) = expected["balanced_accuracy"]  # type: ignore[misc]
    assert first["pgd, ε 0.005"] == f"{value:.3f} [{low:.3f}, {high:.3f}]"
    assert gap["site"] == "largest gap"
    assert gap["clean"].startswith("A − B: 0.333 [")
    assert (gap["n"], gap["patients"]) == ("–", "–")
    assert list(constant.values()) == ["constant answer", "–", "A", "12", "12", "0.333", "0.333"]
    same = Rate(0.5, 0.4, 0.6)
    assert _gap({"A": {"clean": same}, "B": {"clean": same}}, "clean").startswith("A − B: 0.000 [")


def test_small_and_unknown_groups_are_not_shown(grouped: Path) -> None:
    run = group(grouped)
    site, age = (table for table in group_tables(run, 0.95) if "by patient" not in table.title)
    assert "C" not in {row[2] for row in site.rows}
    assert "fewer than 5 test patients (their number): C (3)" in site.note
    assert [row[2:5] for row in age.rows] == [["60 to 75", "23", "23"]] * 2, "a single group has no gap"
    assert [row[0] for row in age.rows] == ["one", "constant answer"]
    assert "fewer than" not in age.note


def alone(folder: Path) -> Run:
    """The run `grouped` with answers by patient, and one patient (p23) at a site of its own."""
    data = folder / "data"
    manifest = read_manifest(data / "prepared" / "manifest.csv").assign(site=["A"] * 12 + ["B"] * 11 + ["D"])
    write_table(data / "prepared" / "manifest.csv", manifest)
    table = predictions(set())
    parts = [table.assign(corruption="motion", severity=5, draw=0, unit=unit) for unit in ("image", "patient")]
    corrupted = pd.concat([parts[0], parts[1].assign(id=table["patient"])])
    save(data / "corrupt" / "one-clean.parquet", corrupted, "one-clean")
    write_record(folder / "metrics" / "corrupt" / "one-clean.json", {"n": 24})
    save(data / "predictions" / "patients" / "one-clean.parquet", table.assign(split="test"), "one-clean")
    attempts = read_table(data / "attacks" / "one-clean" / "pgd.parquet")
    attempts = attempts.assign(id=attempts["patient"])
    save(data / "attacks" / "patients" / "one-clean-pgd.parquet", attempts, "one-clean", suite_hash(SUITE))
    return group(folder)


@pytest.mark.parametrize(("unit", "number"), [("image", 0), ("patient", 1)])
def test_a_group_of_one_patient_is_named_and_not_shown(grouped: Path, unit: str, number: int) -> None:
    table = group_tables(alone(grouped), 0.95)[number]
    assert table.title == f"Groups: site{', by patient' if unit == 'patient' else ''}"
    assert table.columns[3:] == ["n", "patients", "clean", "corrupted", "pgd, ε 0.005"]
    mine = [row for row in table.rows if row[:2] == ["one", "clean"]]
    assert [row[2:5] for row in mine] == [["A", "12", "12"], ["B", "11", "11"], ["largest gap", "–", "–"]]
    assert all(cell != "–" for row in mine for cell in row[5:]), "every condition has results of both sites"
    assert not [cell for row in table.rows for cell in row if "D" in cell], "neither a row nor a gap"
    assert table.note.endswith("fewer than 5 test patients (their number): D (1).")
    assert f"on the test {unit}s of a group" in table.note


def test_if_every_group_is_too_small_all_are_named(grouped: Path) -> None:
    path = grouped / "data" / "prepared" / "manifest.csv"
    write_table(path, read_manifest(path).assign(site=[f"S{k}" if k % 6 else "" for k in range(24)]))
    run = group(grouped)
    table = group_tables(run, 0.95)[0]
    assert [row[2] for row in table.rows] == ["no group is large enough"]
    assert "S1 (1), S10 (1)" in table.note
    assert "no group is large enough" in render_markdown(page_content(run, SETTINGS))


def test_a_patient_whose_images_are_of_two_groups_is_in_none_by_patient(grouped: Path) -> None:
    path = grouped / "data" / "prepared" / "manifest.csv"
    manifest = read_manifest(path)
    manifest.loc[1, "patient"] = "p12"  # an image at site A; that of p12 itself is at B
    write_table(path, manifest)
    assert group(grouped).groups["patient"].loc[["p0", "p12"], "site"].tolist() == ["A", ""]


def test_corrupted_images_are_a_condition_where_a_model_was_evaluated_on_them(grouped: Path) -> None:
    table = pd.concat([
        predictions({0, 1}).assign(corruption="motion", severity=5, draw=0),
        predictions(set(range(24))).assign(corruption="motion", severity=5, draw=1),
        predictions(set(range(24))).assign(corruption="none", severity=0, draw=0),
    ])  # fmt: skip
    save(grouped / "data" / "corrupt" / "one-clean.parquet", table.assign(unit="image"), "one-clean")
    assert "corrupted" not in rows(group(grouped))[0]
    write_record(grouped / "metrics" / "corrupt" / "one-clean.json", {"n": 24})
    first, second, *_ = rows(group(grouped))
    assert first["corrupted"].startswith("0.833 [")
    assert second["corrupted"].startswith("1.000 [")


def test_data_without_groups_have_no_table_and_miss_nothing(folder: Path) -> None:
    run = group(folder)
    assert group_tables(run, 0.95) == []
    assert not [path for path in run.missing if "predictions" in path]


def test_predictions_of_other_weights_are_left_out(grouped: Path) -> None:
    save(
        grouped / "data" / "predictions" / "one-clean.parquet", predictions(set()).assign(split="test"), "two-adv"
    )
    run = group(grouped)
    assert rows(run)[0]["clean"] == "–"
    assert any("one-clean.parquet" in path for path in run.foreign)


def test_the_report_has_groups_and_no_id(grouped: Path) -> None:
    text = render_markdown(page_content(group(grouped), SETTINGS))
    assert "### Groups: site" in text
    assert "p12" not in text
    assert "i12" not in text


def test_the_interval_of_a_difference_is_that_of_the_literature() -> None:
    """Newcombe 1998 (Statistics in Medicine 17, p. 876), example (a): 56/70 and 48/80 by Wilson's intervals."""
    one, other = (
        Rate(right / total, *binomtest(right, total).proportion_ci(method="wilson"))
        for right, total in ((56, 70), (48, 80))
    )
    assert difference(one, other) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_the_groups_of_the_manifest_are_text(grouped: Path) -> None:
    found: Any = read_manifest(grouped / "data" / "prepared" / "manifest.csv")["age"]
    assert found.iloc[0] == ""

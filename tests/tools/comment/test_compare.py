"""Which measures of two commits are compared, at which radii, and what counts as a clear change."""

import json
from dataclasses import replace
from pathlib import Path

from medrobust.core.records import write_metrics
from medrobust.core.versions import installed
from tests.params import preset, save
from tests.tools.comment.committed import results
from tools.comment.compare import Measure, Row, compare
from tools.comment.results import Results, Value, read_results


def radii(base: Results, this: Results) -> set[str | None]:
    return {row.measure.eps for row in compare(base, this).rows if row.measure.suite}


def test_radii_are_fixed_by_the_base_not_by_the_changed_training_radius() -> None:
    suites = {"pgd": ("0.005", "0.01", "0.02")}
    assert radii(results(suites=suites), results(suites=suites, adv={"eps": 0.005})) == {"0.02"}
    assert radii(results(suites=suites, adv={"eps": 0.011}), results(suites=suites)) == {"0.01"}
    assert radii(results(suites=suites), results(suites={"pgd": ("0.005", "0.01", "0.03")})) == {"0.01"}
    assert radii(results(suites=suites), results(suites={"pgd": ("0.1",)})) == set()


def test_another_norm_uses_the_middle_radius_and_a_changed_norm_is_not_compared() -> None:
    base = results(suites={"pgd": ("0.5", "1.0", "2.0")})
    other = replace(
        base, params=preset() | {"models": {"net": {}}, "attacks": {"suites": {"pgd": {"norm": "L2"}}}}
    )
    assert radii(other, other) == {"1.0"}
    compared = compare(base, other)
    assert radii(base, other) == set()
    assert compared.only_base == ["suite pgd"]
    assert compared.only_this == ["suite pgd"]


def test_orphaned_records_of_removed_backbones_do_not_count() -> None:
    base = results(backbones=("net", "old"), verdict="invalid")
    this = replace(base, params=results().params)
    compared = compare(base, this)
    assert {row.measure.model for row in compared.rows} == {"ensemble-adv", "net-adv", "net-clean"}
    for model in ("ensemble-adv", "net-adv", "net-clean"):
        this.records[f"checks/{model}"]["suites"]["pgd"]["verdict"] = "no problem found"
    assert compare(base, this).checklist == ("invalid", "no problem found")


def test_the_checklist_is_the_worst_of_the_suites_in_params() -> None:
    side = results(suites={"pgd": ("0.02",), "cw": ("0.02",)}, verdict="no problem found")
    side.records["checks/net-adv"]["suites"]["cw"]["verdict"] = "invalid"
    assert side.checklist("net-adv") == "invalid"
    assert side.checklist("net-clean") == "no problem found"
    assert side.worst_checklist() == "invalid"
    del side.records["checks/net-clean"]["suites"]["cw"]
    assert side.checklist("net-clean") == "missing"


def test_intervals_overlap_or_not_and_the_paired_test_decides_where_there_is_one() -> None:
    measure, base = Measure("net-adv"), Value(0.5, [0.4, 0.6])
    assert Row(measure, base, Value(0.65, [0.55, 0.75])).overlap is True
    assert Row(measure, base, Value(0.75, [0.65, 0.85])).overlap is False
    assert Row(measure, base, Value(0.25, [0.15, 0.35])).overlap is False
    assert Row(measure, base, Value(0.75, None)).overlap is None
    assert Row(measure, base, Value(0.75, [0.65, 0.85])).clear
    assert not Row(measure, base, Value(0.75, [0.65, 0.85]), p=0.2).clear
    assert Row(measure, base, Value(0.55, [0.45, 0.65]), p=0.01).clear
    assert not Row(measure, base, Value(0.5001, [0.4, 0.6]), p=0.01).changed


def test_the_paired_test_runs_for_changed_measures_only() -> None:
    base, this, asked = results(), results(), []
    this.records["train/net-adv"]["balanced_accuracy"] = 0.9

    def paired(measure: Measure) -> float:
        asked.append(measure)
        return 0.5

    compare(base, this, paired)
    assert asked == [Measure("net-adv")]


def test_results_are_read_from_a_checkout_and_what_is_damaged_is_left_out(tmp_path: Path) -> None:
    save(tmp_path, preset())
    record = tmp_path / "metrics" / "train" / "resnet34-adv.json"
    write_metrics(record, {"balanced_accuracy": 0.7}, {})
    (tmp_path / "metrics" / "audit.json").write_text("<<<<<<< HEAD")
    (tmp_path / "metrics" / "split.json").write_text(json.dumps({"old": 1}))
    lock = "stages:\n  split:\n    outs:\n    - path: data/split.csv\n      md5: abc\n"
    (tmp_path / "dvc.lock").write_text(lock)
    found = read_results(tmp_path)
    assert found.clean("resnet34-adv") == Value(0.7, None)
    assert found.audit() == "missing"
    assert found.outs == {"data/split.csv": "abc"}
    assert found.versions == {"train/resnet34-adv": installed()}
    assert found.models()[0] == "ensemble-adv"
    (tmp_path / "dvc.lock").write_text(f"<<<<<<< HEAD\n{lock}=======\n>>>>>>> x\n")
    assert read_results(tmp_path).outs == {}
    assert read_results(tmp_path / "nothing").models() == ["ensemble-adv"]

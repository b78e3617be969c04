"""Versions that decide results are recorded with each result and compared by package."""

from importlib.metadata import version
from pathlib import Path

from medrobust.core.records import read_metrics, read_versions, write_json, write_metrics
from medrobust.core.versions import by_package, changed_results, differences, installed, of_metrics


def test_the_packages_that_compute_are_named_with_their_versions() -> None:
    for name in ("torch", "timm", "kornia", "numpy", "scikit-learn"):
        assert f"{name} {version(name)}" in installed().split(", ")


def test_a_metrics_file_names_the_versions_beside_its_record(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_metrics(path, {"n": 3}, {"accuracy": 0.5})
    assert read_versions(path) == installed()
    assert read_metrics(path) == {"n": 3}


def test_a_cell_that_is_switched_off_computed_nothing(tmp_path: Path) -> None:
    write_metrics(tmp_path / "a.json", {}, {})
    assert read_versions(tmp_path / "a.json") == ""


def test_a_file_without_versions_has_none(tmp_path: Path) -> None:
    for number, content in enumerate(([1], {"versions": "torch 1"}, {"versions": [1]}, {"details": [{}]}, 3)):
        write_json(tmp_path / f"{number}.json", content)
        assert read_versions(tmp_path / f"{number}.json") == ""
        assert of_metrics(content) == ""


def test_differences_are_those_of_packages_that_both_name() -> None:
    before, after = "kornia 0.8.0, numpy 2.4.6, torch 2.14.0+cpu", "numpy 2.4.6, timm 1.0.0, torch 2.15.0"
    assert differences(before, after) == ["torch 2.14.0+cpu -> 2.15.0"]
    assert differences(before, before) == []
    assert differences("", after) == []


def test_a_difference_is_told_with_the_results_that_it_concerns() -> None:
    old, new = "numpy 1, torch 1", "numpy 1, torch 2"
    before = {"a": old, "b": old, "c": new, "gone": old}
    after = {"a": new, "b": "numpy 2, torch 2", "c": new, "added": new}
    assert changed_results(before, after) == {"torch 1 -> 2": ["a", "b"], "numpy 1 -> 2": ["b"]}


def test_versions_are_counted_by_package() -> None:
    counts = by_package(["numpy 1, torch 1", "numpy 1, torch 2", ""])
    assert counts == {"numpy": {"1": 2}, "torch": {"1": 1, "2": 1}}

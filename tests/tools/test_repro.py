"""Stages that need nothing of each other run side by side, each after what it needs; nothing else changes."""

import os
import re
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from medrobust.core.records import write_metrics
from tests.params import preset, save
from tools import repro

ROOT = Path(__file__).resolve().parents[2]


def recorded(monkeypatch: pytest.MonkeyPatch, failing: str = "") -> list[str]:
    """The stages in the order in which they are run; all but `failing` succeed."""
    started: list[str] = []

    def reproduce(name: str) -> bool:
        started.append(name)
        return name != failing

    monkeypatch.setattr(repro, "reproduce", reproduce)
    return started


def test_the_longest_way_starts_first(monkeypatch: pytest.MonkeyPatch) -> None:
    needs: dict[str, set[str]] = {"short": set(), "long": set(), "longer": {"long"}, "longest": {"longer"}}
    needs["end"] = {"short", "longest"}
    started = recorded(monkeypatch)
    assert repro.run(needs, 1) == []
    assert started == ["long", "longer", "longest", "short", "end"]


def test_as_many_run_at_once_as_asked_for_and_none_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {**{f"cell{number}": {"first"} for number in range(5)}, "first": set()}
    needs["last"] = set(needs)
    running: set[str] = set()
    done: set[str] = set()
    most = []
    lock = threading.Lock()

    def reproduce(name: str) -> bool:
        with lock:
            assert needs[name] <= done
            running.add(name)
            most.append(len(running))
        time.sleep(0.02)
        with lock:
            running.remove(name)
            done.add(name)
        return True

    monkeypatch.setattr(repro, "reproduce", reproduce)
    assert repro.run(needs, 2) == []
    assert done == set(needs)
    assert max(most) == 2


def test_after_a_failure_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    started = recorded(monkeypatch, failing="b")
    assert repro.run({"a": set(), "b": {"a"}, "c": {"b"}, "d": {"b"}}, 1) == ["b"]
    assert started == ["a", "b"]


def repository(folder: Path) -> None:
    """A DVC repository of the diamond; `b` and `c` each wait until the other has started."""
    wait = "until [ -e {other}.started ]; do sleep 0.05; done"
    stages = {
        "a": {"cmd": "echo a > a.txt", "params": ["seed"], "outs": ["a.txt"]},
        "b": {"cmd": f"touch b.started; {wait.format(other='c')}; cat a.txt > b.txt", "deps": ["a.txt"]},
        "c": {"cmd": f"touch c.started; {wait.format(other='b')}; cat a.txt > c.txt", "deps": ["a.txt"]},
        "d": {"cmd": "cat b.txt c.txt > d.txt", "deps": ["b.txt", "c.txt"]},
    }
    for name in "bcd":
        stages[name]["outs"] = [f"{name}.txt"]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    save(folder, preset("smoke"))
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=folder, check=True, timeout=60)


def command(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.repro", "--jobs", "2"], cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_dvc_runs_independent_stages_at_once_and_finds_all_up_to_date(tmp_path: Path) -> None:
    repository(tmp_path)
    first = command(tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert (tmp_path / "d.txt").read_text() == "a\na\n"
    assert "Running stage" not in first.stdout, "the closing `dvc repro` had something left to run"
    locked = yaml.safe_load((tmp_path / "dvc.lock").read_text())["stages"]
    assert set(locked) == set("abcd")
    again = command(tmp_path)
    assert "done in" not in again.stdout
    assert "up to date" in again.stdout


def broken(folder: Path, command_of_a: str) -> subprocess.CompletedProcess[str]:
    """What comes of the diamond if `a` runs another command; the run has to fail."""
    repository(folder)
    text = (folder / "dvc.yaml").read_text()
    (folder / "dvc.yaml").write_text(text.replace("echo a > a.txt", command_of_a))
    found = command(folder)
    assert found.returncode == 1
    return found


@pytest.mark.slow
def test_a_stage_that_fails_is_named_and_ends_the_run(tmp_path: Path) -> None:
    found = broken(tmp_path, "echo no room left; exit 3")
    assert "a | no room left\n" in found.stdout
    assert "a | FAILED in" in found.stdout
    assert "failed: a" in found.stderr
    assert not (tmp_path / "b.started").exists()


@pytest.mark.slow
def test_what_dvc_has_against_a_stage_is_shown(tmp_path: Path) -> None:
    found = broken(tmp_path, "echo nothing written")
    assert "a | ERROR:" in found.stdout
    assert "a.txt" in found.stdout


@pytest.mark.parametrize("name", ["x; touch pwned #", "../x", 7])
def test_a_name_reaches_no_shell(name: Any, tmp_path: Path) -> None:
    content = preset("smoke")
    content["attacks"]["suites"][name] = content["attacks"]["suites"]["pgd"]
    save(tmp_path, content)
    stage = {"matrix": {"suite": "${attacks.suites}"}, "cmd": "echo ${item.suite}", "outs": []}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"suite": stage}}))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "tools.repro", "--jobs", "1"], cwd=tmp_path, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"attacks.suites.{name}: got {name!r}. Use letters, digits and _" in done.stderr
    assert not (tmp_path / "pwned").exists()


def test_a_slip_in_params_is_told_before_dvc_reads_them(tmp_path: Path) -> None:
    content = preset("smoke")
    content["modelss"] = content.pop("models")
    save(tmp_path, content)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "tools.repro"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("params.yaml: modelss: unknown key (and 1 more error). Did you mean models?")


CHEAP_NEEDS: dict[str, set[str]] = {
    "code": set(),
    "split": {"code"},
    "settings": {"code", "split"},
    "train": {"settings"},
}


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ({"code", "split", "settings", "train"}, {"code"}),
        ({"settings", "train"}, {"settings"}),
        ({"split", "settings"}, set()),
        ({"train"}, set()),
    ],
)
def test_stages_that_only_resolve_run_first_if_they_wait_for_no_other(changed: set[str], first: set[str]) -> None:
    assert set(repro.cheap_first(CHEAP_NEEDS, changed)) == first


def test_results_of_earlier_versions_are_told_after_a_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_metrics(tmp_path / "metrics" / f"{name}.json", {"n": 1}, {})
    assert repro.version_notes(tmp_path / "metrics") == []
    path = tmp_path / "metrics" / "a.json"
    path.write_text(re.sub(r"timm [^,]+", "timm 0.9", path.read_text()))
    notes = repro.version_notes(tmp_path / "metrics")
    assert notes[0] == f"timm 0.9 -> {version('timm')}: 1 of 2 results are of the first"
    assert "`dvc repro --force`" in notes[1]

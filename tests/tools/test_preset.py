"""Presets are overlays, and what they make of params.yaml is what DVC would write."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from dvc.utils.serialize import modify_yaml, parse_yaml_for_update

from medrobust.core.errors import UserError
from medrobust.core.params.schema import check_params
from medrobust.core.params.yaml_file import parse_params, read_params
from tests.params import preset
from tools.preset import NAMED, differences, names, render, write
from tools.replay import studies

ROOT = Path(__file__).resolve().parent.parent.parent
OVERLAYS = [name for name in names() if name != "default"]
BASE = """# The base.

seed: 1                       # one seed

models:                       # one block per backbone
  one:
    timm: a                   # the architecture
    size: 3                   # pixels

train:                        # training
  lr: 0.1                       # learning rate
  steps:                      # a list
  - 1
  path:                       # a file
"""


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    """A folder of presets with a small base."""
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "default.yaml").write_text(BASE)
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository whose params.yaml is the default preset with another seed."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "params.yaml").write_text(render().replace("seed: 1 ", "seed: 7 "))
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "-m", "first"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_the_default_preset_is_params_yaml_byte_for_byte() -> None:
    assert render().encode() == (ROOT / "presets" / "default.yaml").read_bytes()


@pytest.mark.parametrize("name", names())
def test_dvc_writes_back_what_it_reads(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(render(name))
    with modify_yaml(path):
        pass
    assert path.read_text() == render(name)


@pytest.mark.parametrize("name", names())
def test_dvc_changes_one_line(name: str, tmp_path: Path) -> None:
    """`dvc exp run -S` writes every value of the file: no list, null, number or comment may change its form."""
    path = tmp_path / "params.yaml"
    path.write_text(render(name))
    apply_overrides(path, ["adv.eps=0.0049"])
    before, after = render(name).splitlines(), path.read_text().splitlines()
    assert len(before) == len(after)
    (changed,) = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert changed[1].startswith("  eps: 0.0049  ")
    assert changed[1].endswith("# radius of the training attack")
    assert read_params(path) == {**preset(name), "adv": {**preset(name)["adv"], "eps": 0.0049}}


def test_dvc_accepts_every_change_that_the_docs_show(tmp_path: Path) -> None:
    texts = [path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
    changes = {change for text in texts for change in re.findall(r"-S '?(\+?[\w.]+=[^\s'`]+)", text)}
    assert {"adv.eps=0.005", "+models.resnet34.head.widths=[64]"} <= changes
    path = tmp_path / "params.yaml"
    for change in changes:
        for single in get_hydra_sweeps({"params.yaml": [change]}):
            path.write_text(render())
            apply_overrides(path, single["params.yaml"])
            check_params(read_params(path), change)


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_short_and_gives_reasons(name: str) -> None:
    """Each value and each replaced block has a comment on its line; one line may set several values."""
    text = (ROOT / "presets" / f"{name}.yaml").read_text()
    lines = text.splitlines()
    assert text.startswith("# ")
    # A study differs from the demonstration in nearly every block.
    assert len(lines) <= (90 if name.partition("-")[0] in studies() else 45)
    assert max(map(len, lines)) <= 115

    def without_reason(block: Any, prefix: str = "") -> list[str]:
        found = []
        for key, value in block.items():
            line = lines[block.lc.key(key)[0]]
            if isinstance(value, dict) and value and f"{prefix}{key}" not in NAMED and "#" not in line:
                found += without_reason(value, f"{prefix}{key}.")
            elif "#" not in line and key != "extends":
                found.append(f"{prefix}{key}")
        return found

    assert without_reason(parse_yaml_for_update(text, name)) == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_has_only_what_differs(name: str) -> None:
    overlay = parse_params((ROOT / "presets" / f"{name}.yaml").read_text(), name)
    base = preset(overlay.pop("extends", "default"))

    def same(values: dict[str, Any], others: dict[str, Any], prefix: str = "") -> list[str]:
        found = []
        for key, value in values.items():
            if isinstance(value, dict) and isinstance(others[key], dict) and f"{prefix}{key}" not in NAMED:
                found += same(value, others[key], f"{prefix}{key}.")
            elif value == others[key]:
                found.append(f"{prefix}{key}")
        return found

    assert same(overlay, base) == []


@pytest.mark.parametrize("name", names())
def test_a_rendering_has_the_comments_of_the_base(name: str) -> None:
    """Those of keys that are left; a named block that was replaced has them at the first key of a name."""
    text = render(name)
    assert "# radius of the training attack" in text
    assert "    timm: " in text
    assert "# timm's name of the architecture" in text
    assert "# names in src/medrobust/attacks/registry.py, with their hyper-parameters" in text


def test_named_blocks_are_replaced_and_others_merged(presets: Path) -> None:
    (presets / "big.yaml").write_text(
        "# A large one.\n\nmodels:\n  two: {timm: b, steps: [1, 2]}   # own reason\n  three: {timm: c}\n"
        "# why\ntrain: {lr: 0.2, path: $DATA/x}   # reason\n"
    )
    assert render("big", presets) == (
        "# A large one.\n# The base.\n\nseed: 1                       # one seed\n\n"
        "models:                       # one block per backbone\n"
        "  two:                        # own reason\n    timm: b                   # the architecture\n"
        "    steps:\n    - 1\n    - 2\n  three: {timm: c}\n\n"
        "train:                        # training\n  lr: 0.2                       # learning rate\n"
        "  steps:                      # a list\n  - 1\n  path: $DATA/x               # a file\n"
    )


def test_a_preset_may_have_comments_alone(presets: Path) -> None:
    (presets / "same.yaml").write_text("# The same.")
    assert render("same", presets) == "# The same.\n" + render("default", presets)


def test_a_preset_extends_another(presets: Path) -> None:
    (presets / "one.yaml").write_text("train: {lr: 0.2, steps: [2, 3]}\nseed: 2\n")
    (presets / "two.yaml").write_text("extends: one\ntrain: {lr: 0.3}\n")
    found = parse_params(render("two", presets), "two")
    assert found["train"] == {"lr": 0.3, "steps": [2, 3], "path": None}
    assert found["seed"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "extends: nine\n",
            r"there is no preset 'nine'\. Use `make preset NAME=\.\.\.` with one of: default",
        ),
        ("extends: over\n", r"presets/over\.yaml: extends: a cycle: over -> over\. Delete one `extends`"),
        ("train: {rate: 1}\n", r"presets/over\.yaml: train\.rate: unknown key\. Known here: lr, steps, path"),
        ("speed: 1\n", r"presets/over\.yaml: speed: unknown key\. Known here: seed, models, train"),
        ("seed: 1\nseed: 2\n", r"presets/over\.yaml, line 2: the key 'seed' is set twice"),
    ],
)
def test_a_wrong_overlay_is_named(text: str, message: str, presets: Path) -> None:
    (presets / "over.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        render("over", presets)


def test_a_longer_cycle_is_named(presets: Path) -> None:
    (presets / "a.yaml").write_text("extends: b\n")
    (presets / "b.yaml").write_text("extends: a\n")
    with pytest.raises(UserError, match=r"presets/b\.yaml: extends: a cycle: a -> b -> a"):
        render("a", presets)


def test_what_changes_is_listed_key_by_key() -> None:
    old = {"a": {"b": 1, "c": [1, 2], "d": None}, "models": {"x": {"t": 1}}, "same": True}
    new = {"a": {"b": 2, "c": [1], "d": "text"}, "models": {"y": {"t": 1}}, "same": True}
    assert list(differences(old, new)) == [
        "a.b: 1 -> 2",
        "a.c: [1, 2] -> [1]",
        "a.d: null -> text",
        "models.x: removed",
        'models.y: added, {"t": 1}',
    ]


def test_committed_parameters_and_presets_are_overwritten(repository: Path) -> None:
    path = repository / "params.yaml"
    assert "seed: 7 -> 1" in write("smoke", path)
    assert path.read_text() == render("smoke")
    assert "report.bootstrap: 200 -> 2000" in write("default", path)
    assert write("default", path) == []


def test_unsaved_edits_are_overwritten_only_on_demand(repository: Path) -> None:
    path = repository / "params.yaml"
    path.write_text(path.read_text().replace("eps: 0.02 ", "eps: 0.03 "))
    edited = path.read_text()
    with pytest.raises(UserError, match=r"params\.yaml: has edits that .*NAME=smoke FORCE=1"):
        write("smoke", path)
    assert path.read_text() == edited
    assert "adv.eps: 0.03 -> 0.01" in write("smoke", path, force=True)
    path.write_text("a: [")
    assert len(write("default", path, force=True)) == len(preset()), "every block is new beside a broken file"


def test_without_git_only_presets_are_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    assert len(write("default", path)) == len(preset())
    write("smoke", path)
    path.write_text("seed: 1\n")
    with pytest.raises(UserError, match="has edits"):
        write("smoke", path)


def test_a_preset_that_makes_no_valid_parameters_is_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "presets"
    shutil.copytree(ROOT / "presets", folder)
    (folder / "bad.yaml").write_text("adv: {eps: 8}\n")
    with pytest.raises(UserError, match=r"presets/bad\.yaml: adv\.eps: got 8"):
        write("bad", tmp_path / "params.yaml", folder)
    assert not (tmp_path / "params.yaml").exists()


def test_the_command_prints_what_changed(repository: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tools.preset", *arguments]
        return subprocess.run(
            command, cwd=repository, env=environment, capture_output=True, text=True, check=False
        )

    done = run("smoke")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("seed: 7 -> 1\ndata.image_size: 64 -> 32\n")
    assert done.stdout.splitlines()[-1].startswith("params.yaml: preset smoke, ")
    done = run("smok")
    assert done.returncode == 1
    assert "there is no preset 'smok'. Use `make preset NAME=...` with one of: a" in done.stderr
    done = run("")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "make preset NAME=smoke")


def test_make_hands_on_the_name_and_the_force(tmp_path: Path) -> None:
    """Make's own words, without running them."""
    command = ["make", "--dry-run", "--no-print-directory", "preset", "NAME=smoke", "FORCE=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "python -m tools.preset smoke --force" in done.stdout
    done = subprocess.run(command[:-1], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("python -m tools.preset smoke")


def test_the_defaults_of_presets_stay_what_they_are_for() -> None:
    """Values that results in docs/results.md were made with, and the speed of the smoke preset."""
    alzheimer = check_params(preset("alzheimer-grades"), "alzheimer-grades")
    assert (alzheimer.attacks.check_images, alzheimer.attacks.check_queries) == (8, 50)
    assert not alzheimer.ensemble.temperature
    brain = check_params(preset("detection-brain"), "detection-brain")
    assert (brain.data.ordered, brain.split.strategy, brain.split.merge) == (False, "random", {})
    assert brain.detect.cells(brain.models) == [("resnet18", "clean")]
    defences = check_params(preset("defences"), "defences")
    assert [model.adv["objective"] for model in defences.models.values()] == ["mixed", "trades", "fgsm_rs", "ssat"]
    assert defences.detect.cells(defences.models) == []
    smoke = check_params(preset("smoke"), "smoke")
    assert smoke.data.phantom is not None
    images = sum(smoke.data.phantom.patients.values()) * smoke.data.phantom.slices
    assert (images, smoke.train.epochs, smoke.adv.epochs) == (38, 2, 1)
    assert json.dumps(preset("smoke")["detect"]["ensemble"]) == '["adv"]'

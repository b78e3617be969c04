"""params.yaml is read by the rules by which DVC writes it, and what DVC could not write back is refused."""

from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides

from medrobust.core.errors import UserError
from medrobust.core.params.schema import load_params
from medrobust.core.params.yaml_file import parse_params, read_params
from tests.params import preset, save


def test_classes_named_no_and_yes_survive_a_change_by_dvc(tmp_path: Path) -> None:
    """DVC writes `no` without quotes, which YAML 1.1 reads as False."""
    content = preset()
    content["data"]["classes"], content["external"]["sets"] = ["no", "yes"], {}
    path = save(tmp_path, content)
    apply_overrides(path, ["adv.eps=0.005"])
    assert "- no\n" in path.read_text()
    params = load_params(path)
    assert (params.data.classes, params.adv.eps) == (["no", "yes"], 0.005)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("5E-4", 0.0005), ("1.0e-3", 0.001), ("8/255", "8/255"), ("no", "no"), ("on", "on"),
        ("010", 10), ("1:30", "1:30"), ("true", True), ("", None), ("null", None), ("'1'", "1"),
    ],
)  # fmt: skip
def test_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    assert parse_params(f"key: {text}\n", "params.yaml") == {"key": value}


def test_numbers_without_a_point_and_fractions_are_accepted_by_the_schema(root: Path, tmp_path: Path) -> None:
    text = (root / "presets" / "default.yaml").read_text()
    text = text.replace("  eps: 0.02", "  eps: 8/255", 1).replace("  lr: 1.0e-3", "  lr: 1e-3")
    (tmp_path / "params.yaml").write_text(text)
    params = load_params(tmp_path / "params.yaml")
    assert (params.adv.eps, params.train.lr) == (8 / 255, 1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", r"params\.yaml, line 4: the key 'c' is set twice\. Delete one"),
        ("a:\n\t- 1\n", r"line 2: the indentation has a tab\. Use spaces"),
        ("a:\n  - 1\n\tb: 2\n", r"line 3: the indentation has a tab\. Use spaces"),
        ("a: 1\nb: &x 1\nc: *x\n", r"line 2: `&x`: anchors and aliases are not supported\. Write the value out"),
        ("a: *x\n", r"line 1: `\*x`: anchors and aliases are not supported"),
        ("a: {b: ['x${HOME}']}\n", r"params\.yaml: a\.b\.0: got 'x\$\{HOME\}'\..* Use \$NAME for an environment"),
        ("a: [1\n", r"line 2: not valid YAML \(.*\)\. Fix the line named above"),
        ("a: @x\n", r"line 1: not valid YAML \(.*\)\. Fix the line named above; put quotes around text"),
        ("a: !!python/object:os.x 1\n", r"line 1: not valid YAML"),
        ("a: 1\n---\nb: 2\n", r"line 2: not valid YAML"),
        ("a: 1\x00\n", r"not valid YAML \(.*\)\. Delete the character named above"),
        ("- 1\n", r"params\.yaml: holds a list\. Write `key: value` lines"),
    ],
)
def test_a_broken_text_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"(?s){message}"):
        parse_params(text, "params.yaml")


def test_signs_of_anchors_are_allowed_in_comments_and_quotes() -> None:
    assert parse_params("a: 'R&D'  # 2.5 * eps\nb: \"*\"\n", "x") == {"a": "R&D", "b": "*"}


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(UserError, match=r"no such file\. .* `make preset NAME=default`"):
        load_params(path)
    path.write_text("adv: {eps: [")
    with pytest.raises(UserError, match="not valid YAML"):
        load_params(path)
    path.write_bytes("title: é".encode("latin-1"))
    with pytest.raises(UserError, match="not encoded as UTF-8"):
        load_params(path)
    path.write_text("")
    assert read_params(path) == {}
    with pytest.raises(UserError, match=r"params\.yaml: seed: missing \(and \d+ more errors\)"):
        load_params(path)

"""The examples of the block `data` in the documentation."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from medrobust.core.params.data import DataParams

PAGES = pytest.mark.parametrize("name", ["README.md", "docs/data.md"])


def examples(page: Path) -> list[dict[str, Any]]:
    """The blocks `data` of a page."""
    blocks = re.findall(r"(?s)```yaml\n(.*?)```", page.read_text(encoding="utf-8"))
    parts = [part for block in blocks for part in re.split(r"(?m)^(?=data:)", block) if part.startswith("data:")]
    assert parts
    return [yaml.safe_load(part)["data"] for part in parts]


@PAGES
def test_examples_with_own_classes_say_whether_they_are_grades(name: str, root: Path) -> None:
    """Otherwise `ordered: true` of the built-in data would stay."""
    named = [data for data in examples(root / name) if "classes" in data]
    assert named
    assert all("ordered" in data for data in named)


@PAGES
def test_examples_can_be_copied_over_the_keys_of_params(name: str, root: Path) -> None:
    params = yaml.safe_load((root / "presets" / "default.yaml").read_text(encoding="utf-8"))["data"]
    for data in examples(root / name):
        DataParams.model_validate({**params, **data})

"""The examples of the block `data` in the documentation."""

import re
from pathlib import Path

import pytest
import yaml


@pytest.mark.parametrize("name", ["README.md", "docs/data.md"])
def test_examples_with_own_classes_say_whether_they_are_grades(name: str, root: Path) -> None:
    """Otherwise `ordered: true` of the built-in data would stay."""
    blocks = re.findall(r"(?s)```yaml\n(.*?)```", (root / name).read_text(encoding="utf-8"))
    examples = [
        part for block in blocks for part in re.split(r"(?m)^(?=data:)", block) if part.startswith("data:")
    ]
    named = [data for data in (yaml.safe_load(part)["data"] for part in examples) if "classes" in data]
    assert named
    assert all("ordered" in data for data in named)

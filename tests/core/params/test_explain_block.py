"""Block `explain`: old files load without it, and what it names must exist."""

from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from tests.core.params.blocks import load_with


def test_a_file_without_the_block_explains_nothing(root: Path, tmp_path: Path) -> None:
    assert load_with(root, tmp_path, "explain", None).explain.models == []


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"models": ["vgg"], "suite": "pgd", "eps": 0.01}, r"explain\.models: there is no 'vgg'.*resnet34"),
        ({"models": ["resnet34"], "suite": "pdg", "eps": 0.01}, r"explain\.suite: there is no 'pdg'.*pgd"),
        ({"models": ["resnet34"]}, "name a suite, and an eps above 0"),
        ({"models": ["resnet34"], "suite": "pgd"}, "name a suite, and an eps above 0"),
        ({"top": 1}, r"explain\.top: got 1"),
        ({"grid": 0}, r"explain\.grid: got 0"),
        ({"drift_images": -1}, r"explain\.drift_images: got -1"),
        ({"image": 1}, r"explain\.image: unknown key.*images"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    root: Path, tmp_path: Path, block: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_with(root, tmp_path, "explain", block)

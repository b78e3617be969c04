"""Block `detect`: old files load without it, and what it names must exist."""

from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from tests.core.params.blocks import load_with


def test_a_file_without_the_block_guards_nothing(root: Path, tmp_path: Path) -> None:
    assert load_with(root, tmp_path, "detect", None).detect.models == []


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"models": ["resnet99"], "suites": {"pgd": 0.01}}, r"detect\.models: there is no 'resnet99'.*resnet34"),
        ({"suites": {"pdg": 0.01}}, r"detect\.suites: there is no 'pdg'.*pgd"),
        ({"ensemble": ["clean"], "suites": {"pgd": 0.01}}, r"detect\.ensemble: there is no 'clean'.*adv"),
        ({"ensemble": ["adv"]}, "name detectors and suites too"),
        ({"models": ["resnet34"]}, "name detectors and suites too"),
        ({"models": ["resnet34"], "detectors": {}, "suites": {"pgd": 0.01}}, "name detectors and suites too"),
        ({"suites": {"pgd": 0.01}, "seen": "fgsm"}, r"detect\.seen must be one of detect\.suites: pgd"),
        ({"suites": {"pgd": 0}}, "eps 0 attacks nothing"),
        ({"fpr": 0}, r"detect\.fpr: got 0"),
        ({"adaptive": {"attacks": ["psychic"]}}, r"adaptive\.attacks\.0: got 'psychic'.*joint"),
        ({"risk": {"under": -1}}, r"risk\.under: got -1"),
        ({"risk": {"shares": []}}, r"risk\.shares"),
    ],
)
def test_what_cannot_be_is_named(root: Path, tmp_path: Path, block: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_with(root, tmp_path, "detect", block)

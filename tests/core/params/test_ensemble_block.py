"""Blocks `ensemble` and `transfer`: members, methods, and the attack of the transfer matrix."""

from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.schema import Params
from tests.core.params.changed import load_changed
from tests.params import preset


def load_block(folder: Path, block: str, changes: dict[str, Any]) -> Params:
    """The default parameters with changes in a block."""
    return load_changed(folder, block, {**preset()[block], **changes})


def test_all_backbones_are_members_unless_some_are_named(tmp_path: Path) -> None:
    params = load_block(tmp_path, "ensemble", {})
    assert params.ensemble.cells(params.models) == {f"{name}-adv": (name, "adv") for name in params.models}
    named = load_block(tmp_path, "ensemble", {"members": ["resnet34", "dinov2-clean"]})
    assert named.ensemble.cells(named.models) == {
        "resnet34-adv": ("resnet34", "adv"), "dinov2-clean": ("dinov2", "clean")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("block", "changes", "message"),
    [
        ("ensemble", {"members": ["resnet99"]}, r"ensemble\.members: there is no 'resnet99'.*Known.*resnet34"),
        ("ensemble", {"members": ["resnet34-robust"]}, r"ensemble\.members: there is no 'resnet34-robust'"),
        ("ensemble", {"members": ["resnet34", "resnet34-adv"]}, r"resnet34-adv is listed twice"),
        ("ensemble", {"method": "vote"}, r"ensemble\.method: got 'vote'.*'equal', 'convex', 'stacking'"),
        ("ensemble", {"attacked": ["vote"]}, r"ensemble\.attacked\.0: got 'vote'.*'equal', 'convex', 'stacking'"),
        ("ensemble", {"attacked": ["equal", "equal"]}, r"ensemble\.attacked: equal is listed twice"),
        ("ensemble", {"attacked": ["convex"]}, r"ensemble\.attacked: convex is ensemble\.method"),
        ("ensemble", {"holdout": 0.0}, r"ensemble\.holdout: got 0\.0"),
        ("transfer", {"suite": "square"}, r"transfer\.suite: there is no 'square'.*Known: white_box"),
        ("transfer", {"eps": 0.0}, r"transfer: .*set transfer\.suite and an eps above 0"),
    ],
)
def test_what_cannot_be_is_refused(block: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_block(tmp_path, block, changes)

"""Blocks `ensemble` and `transfer`: who may vote, and whose attacks are shown to whom."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from medrobust.core.errors import UserError
from medrobust.core.params.schema import Params, load_params
from tests.core.params.blocks import defaults, load_with


def load_changed(root: Path, folder: Path, block: str, changes: dict[str, Any]) -> Params:
    """The default parameters with changes in a block."""
    return load_with(root, folder, block, {**defaults(root)[block], **changes})


def test_all_backbones_of_the_regime_vote_unless_members_are_named(root: Path, tmp_path: Path) -> None:
    params = load_changed(root, tmp_path, "ensemble", {})
    assert params.ensemble.cells(params.models) == {f"{name}-adv": (name, "adv") for name in params.models}
    named = load_changed(root, tmp_path, "ensemble", {"members": ["resnet34", "dinov2-clean"]})
    assert named.ensemble.cells(named.models) == {
        "resnet34-adv": ("resnet34", "adv"), "dinov2-clean": ("dinov2", "clean")
    }  # fmt: skip


def test_a_file_of_before_has_the_vote_of_before_and_no_transfer(root: Path, tmp_path: Path) -> None:
    content = defaults(root)
    content["ensemble"] = {"regime": "adv", "robust_share": 0.5}
    content.pop("transfer")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    params = load_params(tmp_path / "params.yaml")
    assert (params.ensemble.method, params.ensemble.temperature, params.transfer.images) == ("convex", False, 0)
    assert params.ensemble.attacked == []


@pytest.mark.parametrize(
    ("block", "changes", "message"),
    [
        ("ensemble", {"members": ["resnet99"]}, r"ensemble\.members: there is no 'resnet99'.*Known.*resnet34"),
        ("ensemble", {"members": ["resnet34-robust"]}, r"ensemble\.members: there is no 'resnet34-robust'"),
        ("ensemble", {"members": ["resnet34", "resnet34-adv"]}, r"resnet34-adv stands there twice"),
        ("ensemble", {"method": "vote"}, r"ensemble\.method: got 'vote'.*'equal', 'convex', 'stacking'"),
        ("ensemble", {"attacked": ["vote"]}, r"ensemble\.attacked\.0: got 'vote'.*'equal', 'convex', 'stacking'"),
        ("ensemble", {"attacked": ["equal", "equal"]}, r"ensemble\.attacked: equal stands there twice"),
        ("ensemble", {"attacked": ["convex"]}, r"ensemble\.attacked: convex is the method in force"),
        ("ensemble", {"holdout": 0.0}, r"ensemble\.holdout: got 0\.0"),
        ("transfer", {"suite": "square"}, r"transfer\.suite: there is no 'square'.*Known: fgsm, pgd"),
        ("transfer", {"eps": 0.0}, r"transfer: .*name transfer\.suite and an eps above 0"),
    ],
)
def test_what_cannot_be_is_refused(
    block: str, changes: dict[str, Any], message: str, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load_changed(root, tmp_path, block, changes)

"""params.yaml is read strictly, and each refusal says where, what, and what to do."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medrobust.core.errors import UserError
from medrobust.core.params.base import parse_fraction
from medrobust.core.params.schema import Params, load_params, override
from medrobust.core.seeds import image_seeds


def content(root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((root / "params.yaml").read_text())
    return loaded


def load_changed(root: Path, folder: Path, key: str, value: Any) -> Params:
    """Load the default parameters with the value at one dotted key replaced."""
    changed = content(root)
    block: Any = changed
    *way, last = key.split(".")
    for part in way:
        block = block[part]
    block[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(changed))
    return load_params(folder / "params.yaml")


def test_the_default_parameters_load(root: Path) -> None:
    params = load_params(root / "params.yaml")
    assert 0 < params.adv.eps < 1
    assert set(params.models) == {"dinov2", "resnet34", "efficientnet_b0"}


def test_every_key_of_the_default_parameters_is_explained(root: Path) -> None:
    """The first line that gives a key a value has a comment with its unit or meaning."""
    unexplained, seen = [], set()
    for line in (root / "params.yaml").read_text().splitlines():
        key, _, value = line.strip().partition(":")
        if not value.split("#")[0].strip() or key.startswith(("#", "- ")) or key in seen:
            continue
        seen.add(key)
        if "#" not in value:
            unexplained.append(key)
    assert unexplained == []


@pytest.mark.parametrize(
    ("key", "value", "where", "found"),
    [
        ("adv.epz", 0.1, "params.yaml: adv.epz", "unknown key"),
        ("colour", 1, "params.yaml: colour", "unknown key"),
        ("models.resnet34.sise", 64, "params.yaml: models.resnet34.sise", "unknown key"),
        ("seed", 2**31 - 1, "params.yaml: seed", "got 2147483647"),
        ("augment.scale", [1.05, 0.95], "params.yaml: augment.scale", "got [1.05, 0.95]"),
        ("tune.space.lr", [0.1, 1e-4], "params.yaml: tune.space.lr", "got [0.1, 0.0001]"),
        ("tune.space.lr", [0.0, 0.1], "params.yaml: tune.space.lr", "got 0.0"),
        ("tune.space.batch_size", [16, 0], "params.yaml: tune.space.batch_size", "got 0"),
        ("train.lr", float("inf"), "params.yaml: train.lr", "got inf"),
        ("train.weight_decay", float("nan"), "params.yaml: train.weight_decay", "got nan"),
        ("split.test", 0.85, "params.yaml: split", "0.85"),
        ("report.confidence", 1, "params.yaml: report.confidence", "got 1"),
        ("attacks.suites.pgd.eps", [], "params.yaml: attacks.suites.pgd.eps", "got []"),
        ("adv.eps", "a lot", "params.yaml: adv.eps", "'a lot'"),
        ("adv.eps", 8, "params.yaml: adv.eps", "got 8"),
        ("adv.eps", 0, "params.yaml: adv.eps", "got 0"),
        ("adv.alpha", 0, "params.yaml: adv.alpha", "got 0"),
        ("adv.alpha", "much", "params.yaml: adv.alpha", "got 'much'"),
        ("adv.steps", 0, "params.yaml: adv.steps", "got 0"),
        ("split.strategy", "slices", "params.yaml: split.strategy", "'slices'"),
        (
            "models.resnet34.train",
            {"learning_rate": 1},
            "models.resnet34.train: learning_rate",
            "unknown key",
        ),
        ("models.resnet34.adv", {"eps": -1}, "models.resnet34.adv: eps", "got -1"),
        ("attacks.suites.pgd.norm", "L7", "attacks.suites.pgd.norm", "'L7'"),
        ("attacks.suites.pgd.eps", [8], "attacks.suites.pgd.eps", "got [8]"),
        ("attacks.suites.pgd.eps", [-1], "attacks.suites.pgd.eps", "got -1"),
        ("models", {"res-net": {}}, "params.yaml: models.res-net", "res-net"),
    ],
)
def test_a_wrong_key_or_value_is_named(
    root: Path, tmp_path: Path, key: str, value: Any, where: str, found: str
) -> None:
    with pytest.raises(UserError) as caught:
        load_changed(root, tmp_path, key, value)
    assert where in caught.value.where
    assert "literal" not in caught.value.where, "one message of one key, not of the parts of its type"
    assert found in caught.value.found
    assert caught.value.remedy


def test_ends_of_a_range_may_be_one_value(root: Path, tmp_path: Path) -> None:
    """So a study can hold one hyper-parameter fixed."""
    assert load_changed(root, tmp_path, "tune.space.lr", [1e-3, 1e-3]).tune.space.lr == [1e-3, 1e-3]


def test_the_largest_seed_has_room_for_epochs(root: Path, tmp_path: Path) -> None:
    seed = load_changed(root, tmp_path, "seed", 2_000_000_000).seed
    assert image_seeds(["a"], seed + 10_000).item() > 0


def test_an_l2_radius_may_exceed_one(root: Path, tmp_path: Path) -> None:
    suite = {"norm": "L2", "eps": [2.5, "1/2"], "attacks": [{"name": "pgd_l2"}]}
    params = load_changed(root, tmp_path, "attacks.suites.pgd", suite)
    assert params.attacks.suites["pgd"].eps == [2.5, 0.5]


def test_an_unknown_key_lists_what_is_known_there(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Known here: .*eps.*steps"):
        load_changed(root, tmp_path, "adv.epz", 0.1)
    with pytest.raises(UserError, match=r"Known here: .*timm.*weights"):
        load_changed(root, tmp_path, "models.resnet34.sise", 1)


def test_a_missing_key_is_named(root: Path, tmp_path: Path) -> None:
    changed = content(root)
    del changed["adv"]["eps"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(UserError, match=r"adv\.eps: missing"):
        load_params(tmp_path / "params.yaml")


def test_several_wrong_keys_are_counted(root: Path, tmp_path: Path) -> None:
    changed = content(root)
    changed["adv"]["eps"] = changed["adv"]["steps"] = -1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(UserError, match=r"1 more keys? (is|are) wrong"):
        load_params(tmp_path / "params.yaml")


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("adv: {eps: [")
    with pytest.raises(UserError, match="not valid YAML"):
        load_params(tmp_path / "params.yaml")


def test_a_backbone_overrides_only_what_it_names(root: Path) -> None:
    params = load_params(root / "params.yaml")
    own = override(params.adv, {"steps": 3}, "models.x.adv")
    assert own.steps == 3
    assert own.model_copy(update={"steps": params.adv.steps}) == params.adv


@given(st.integers(0, 255), st.integers(1, 255))
def test_fractions_are_parsed_exactly(numerator: int, denominator: int) -> None:
    assert parse_fraction(f"{numerator}/{denominator}") == numerator / denominator
    assert parse_fraction(str(numerator)) == float(numerator)


@pytest.mark.parametrize("text", ["", "a/b", "1/0", "1/2/3", "eight"])
def test_what_is_no_fraction_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a number nor a fraction"):
        parse_fraction(text)

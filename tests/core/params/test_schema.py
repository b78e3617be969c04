"""params.yaml is read strictly, and each error names the key, the value and the remedy."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medrobust.core.errors import UserError
from medrobust.core.params.base import parse_fraction
from medrobust.core.params.schema import check_params, load_params, override
from medrobust.core.seeds import image_seeds
from tests.core.params.changed import load_changed
from tests.params import preset, save


def test_the_default_parameters_load(root: Path) -> None:
    params = load_params(root / "presets" / "default.yaml")
    assert 0 < params.adv.eps < 1
    assert set(params.models) == {"dinov2", "resnet34", "efficientnet_b0"}


def test_every_key_of_the_default_parameters_is_explained(root: Path) -> None:
    """The first line of each key that has a value has a comment with its unit or meaning."""
    unexplained, seen, sections = [], {"optimiser"}, set(preset())
    for line in (root / "presets" / "default.yaml").read_text().splitlines():
        key, colon, rest = line.strip().removeprefix("- ").partition(":")
        names_of_users = ("dinov2", "resnet34", "efficientnet_b0", "fgsm", "white_box", "name", "loss")
        in_lists = ("over", "file")  # DVC would drop comments there
        section = key in sections and not line.startswith(" ")
        if not colon or key.startswith("#") or key in seen or key in (*names_of_users, *in_lists) or section:
            continue
        seen.add(key)
        if "#" not in rest:
            unexplained.append(key)
    assert [key for key in unexplained if not key.endswith("Demented")] == []


@pytest.mark.parametrize(
    ("key", "value", "where", "found"),
    [
        ("adv.epz", 0.1, "params.yaml: adv.epz", "unknown key"),
        ("colour", 1, "params.yaml: colour", "unknown key"),
        ("detect.models", ["resnet34"], "params.yaml: detect.models", "unknown key"),
        ("data", None, "params.yaml: data", "got None"),
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
        ("attacks.suites.white_box.eps", [], "params.yaml: attacks.suites.white_box.eps", "got []"),
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
            "models.resnet34.train.learning_rate",
            "unknown key",
        ),
        ("models.resnet34.adv", {"eps": -1}, "models.resnet34.adv.eps", "got -1"),
        ("models.resnet34.tune", {"trials": -1}, "models.resnet34.tune.trials", "got -1"),
        ("attacks.suites.white_box.norm", "L7", "attacks.suites.white_box.norm", "'L7'"),
        ("attacks.suites.white_box.eps", [8], "attacks.suites.white_box.eps", "got [8]"),
        ("attacks.suites.white_box.eps", [-1], "attacks.suites.white_box.eps", "got -1"),
        ("models", {"res-net": {}}, "params.yaml: models.res-net", "res-net"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, key: str, value: Any, where: str, found: str) -> None:
    with pytest.raises(UserError) as caught:
        load_changed(tmp_path, key, value)
    assert where in caught.value.where
    assert "literal" not in caught.value.where, "one message of one key, not of the parts of its type"
    assert found in caught.value.found
    assert caught.value.remedy


def test_ends_of_a_range_may_be_one_value(tmp_path: Path) -> None:
    """So a study can hold one hyper-parameter fixed."""
    assert load_changed(tmp_path, "tune.space.lr", [1e-3, 1e-3]).tune.space.lr == [1e-3, 1e-3]


def test_the_largest_seed_has_room_for_epochs(tmp_path: Path) -> None:
    seed = load_changed(tmp_path, "seed", 2_000_000_000).seed
    assert image_seeds(["a"], seed + 10_000).item() > 0


def test_an_l2_radius_may_exceed_one(tmp_path: Path) -> None:
    suite = {"norm": "L2", "eps": [2.5, "1/2"], "attacks": [{"name": "pgd_l2"}]}
    params = load_changed(tmp_path, "attacks.suites.fgsm", suite)
    assert params.attacks.suites["fgsm"].eps == [2.5, 0.5]


def test_an_unknown_key_lists_what_is_known_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Known here: .*eps.*steps"):
        load_changed(tmp_path, "adv.epz", 0.1)
    with pytest.raises(UserError, match=r"Known here: .*timm.*weights"):
        load_changed(tmp_path, "models.resnet34.sise", 1)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    changed = preset()
    del changed["adv"]["eps"]
    with pytest.raises(UserError, match=r"adv\.eps: missing\. Set it; presets/default\.yaml has every key$"):
        load_params(save(tmp_path, changed))


def test_several_wrong_keys_are_counted(tmp_path: Path) -> None:
    changed = preset()
    changed["adv"]["eps"] = changed["adv"]["steps"] = -1
    with pytest.raises(UserError, match=r"and 1 more error"):
        load_params(save(tmp_path, changed))


OPTIONAL = {
    "models.dinov2.trainable", "models.dinov2.normalise", "models.dinov2.head", "models.dinov2.head.widths",
    "models.dinov2.head.dropout",
    *(
        f"models.{name}.{key}"
        for name in preset()["models"] for key in ("tune", "train", "adv", "detect", "explain", "corrupt")
    ),
    "attacks.suites.white_box.give_up",
    "external.sets.site_c.phantom", "external.sets.site_c.phantom.site",
}  # fmt: skip
#: Keys below which the user's own names or hyper-parameters stand.
FREE = (
    "models", "attacks.suites", "data.phantom.patients", "detect.suites", "detect.detectors",
    "detect.detectors.gmm", "external.sets", "external.sets.site_c.classes",
    "external.sets.site_c.phantom.patients",
    *(f"models.{name}.{block}" for name in preset()["models"] for block in ("tune", "train", "adv")),
)  # fmt: skip


def keys(values: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of all values that have no free name; `*` for the name of a suite or model."""
    found = []
    for key, value in values.items():
        path = f"{prefix}{key}"
        found += [] if prefix.removesuffix(".") in FREE else [path]
        found += keys(value, f"{path}.") if isinstance(value, dict) else []
    return found


@pytest.mark.parametrize("key", keys(preset()))
def test_every_key_is_required_but_optional_ones_of_named_blocks(key: str) -> None:
    content = preset()
    parent: Any = content
    *path, last = key.split(".")
    for part in path:
        parent = parent[part]
    del parent[last]
    if key in OPTIONAL:
        check_params(content, "params.yaml")
    else:
        with pytest.raises(UserError, match=rf"params\.yaml: {re.escape(key)}: missing"):
            check_params(content, "params.yaml")


@pytest.mark.parametrize("name", ["res-net", "a/b", "a.b", "50", 50, "", "_a", "é"])
@pytest.mark.parametrize("block", ["models", "attacks.suites", "detect.detectors", "detect.suites"])
def test_a_name_that_files_or_dvc_cannot_hold_is_refused(block: str, name: Any, tmp_path: Path) -> None:
    values: Any = preset()
    for part in block.split("."):
        values = values[part]
    message = rf"{re.escape(block)}\.{name}: got {name!r}.*Use letters, digits and _, starting with a letter"
    with pytest.raises(UserError, match=message):
        load_changed(tmp_path, block, {**values, name: next(iter(values.values()))})


@pytest.mark.parametrize("block", ["models", "attacks.suites", "detect.detectors", "detect.suites"])
def test_a_name_that_some_systems_cannot_store_or_tell_from_another_is_refused(block: str, tmp_path: Path) -> None:
    values: Any = preset()
    for part in block.split("."):
        values = values[part]
    first, value = next(iter(values.items()))
    where = re.escape(block)
    for name in ("con", "NUL", "com1", "Lpt9"):
        with pytest.raises(UserError, match=rf"{where}\.{name}: got '{name}'.*Windows has no file of this one"):
            load_changed(tmp_path, block, {**values, name: value})
    with pytest.raises(UserError, match=rf"{where}\.a+: .*Use at most 64 characters"):
        load_changed(tmp_path, block, {**values, "a" * 65: value})
    twin = first.upper()
    with pytest.raises(UserError, match=rf"{where}: {first} and {twin} differ in capitals only.*rename one"):
        load_changed(tmp_path, block, {**values, twin: value})


@pytest.mark.parametrize("name", ["ensemble", "Ensemble"])
def test_the_name_of_the_ensemble_is_taken(name: str, tmp_path: Path) -> None:
    models = {**preset()["models"], name: preset()["models"]["resnet34"]}
    with pytest.raises(UserError, match=rf"models\.{name}: the name is that of the ensemble"):
        load_changed(tmp_path, "models", models)


def test_whole_numbers_are_names_of_classes() -> None:
    content = preset()
    content["data"] |= {"classes": [0, 1], "labels": {2: 1, "mild": 0, 3: None}}
    content["data"]["phantom"]["patients"] = {0: 3, 1: 4}
    content["split"]["merge"] = {1: 0}
    content["external"]["sets"] = {}
    params = check_params(content, "params.yaml")
    assert params.data.classes == ["0", "1"]
    assert params.data.labels == {"2": "1", "mild": "0", "3": None}
    assert params.data.phantom is not None
    assert params.data.phantom.patients == {"0": 3, "1": 4}
    assert params.split.merge == {"1": "0"}


def test_a_class_is_not_called_like_a_column_beside_its_own(tmp_path: Path) -> None:
    """Else a count of images, or the end of another class's interval, would be overwritten."""
    for names, clash in ((["a", "images"], "images"), (["a", "a_low"], "a_low"), (["a_ci", "a"], "a_ci")):
        with pytest.raises(UserError, match=rf"data\.classes has {clash}, a column beside those of classes"):
            load_changed(tmp_path, "data.classes", names)
    content = preset("alzheimer-cpu")
    content["data"] |= {"classes": ["risk_low", "risk_high"], "labels": {}}
    assert check_params(content, "params.yaml").data.classes == ["risk_low", "risk_high"]


def test_a_text_that_cannot_be_shown_on_one_line_is_no_name_of_a_class(tmp_path: Path) -> None:
    for name in ("a\nb", "\u202edlim", " "):
        with pytest.raises(UserError, match=r"data\.classes\.1: got .*Use one line of visible text"):
            load_changed(tmp_path, "data.classes", ["a", name])
    with pytest.raises(UserError, match=r"report\.title: got .*Use one line of visible text"):
        load_changed(tmp_path, "report.title", "a\n\n# b")
    assert load_changed(tmp_path, "data.labels", {"a\tb": "MildDemented"}).data.labels == {"a\tb": "MildDemented"}


@pytest.mark.parametrize("name", [True, None, 0.5])
def test_other_values_are_no_names_of_classes(name: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.classes\.1: got .*put quotes around it"):
        load_changed(tmp_path, "data.classes", ["a", name])


def test_a_backbone_overrides_only_what_it_names(root: Path) -> None:
    params = load_params(root / "presets" / "default.yaml")
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


def test_a_misspelt_key_is_named_although_the_right_one_is_missing_too() -> None:
    content = preset()
    content["adv"]["epss"] = content["adv"].pop("eps")
    with pytest.raises(UserError) as error:
        check_params(content, "params.yaml")
    assert str(error.value).startswith(
        "params.yaml: adv.epss: unknown key (and 1 more error). Did you mean eps? Known"
    )


def test_a_rule_for_a_whole_block_does_not_print_the_block() -> None:
    content = preset()
    content["split"] |= {"strategy": "kfold", "fold": 9}
    with pytest.raises(UserError, match=r"^params\.yaml: split: fold 9 does not exist"):
        check_params(content, "params.yaml")

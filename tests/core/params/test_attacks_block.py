"""Block `attacks`: surrogates are models of the run, each listed once for a suite that uses it."""

from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.schema import Params, check_params
from tests.core.params.changed import load_changed
from tests.params import preset

OURS = {"suite": "moved", "backbone": "resnet34", "regime": "clean"}
USES = [{"name": "transfer", "source": "resnet34-clean"}]


def load_moved(folder: Path, surrogates: list[Any], attacks: list[dict[str, Any]]) -> Params:
    """The default parameters with surrogates and a suite `moved`."""
    block = preset()["attacks"]
    block["suites"]["moved"] = {"norm": "Linf", "eps": [0.01], "attacks": attacks}
    return load_changed(folder, "attacks", {**block, "surrogates": surrogates})


def test_a_surrogate_of_the_run_or_foreign_weights_with_a_hash(tmp_path: Path) -> None:
    found = load_moved(tmp_path, [OURS], USES).attacks.surrogates
    assert [entry.model_dump() for entry in found] == [OURS]
    foreign = {"name": "transfer", "source": "elsewhere", "sha256": "0" * 64}
    assert not load_moved(tmp_path, [], [foreign]).attacks.surrogates


@pytest.mark.parametrize(
    ("surrogates", "attacks", "message"),
    [
        ([], USES, r"no 'resnet34-clean' for 'moved'"),
        ([{**OURS, "regime": "adv"}], USES, r"no 'resnet34-clean' for 'moved'"),
        ([OURS], [{"name": "fgsm"}], r"'resnet34-clean' for 'moved' is used by no attack"),
        ([OURS, OURS], USES, r"'resnet34-clean' for 'moved' is used by no attack, or listed twice"),
        ([OURS, {**OURS, "suite": "fgsm"}], USES, r"'resnet34-clean' for 'fgsm' is used by no attack"),
        (
            [{**OURS, "backbone": "vgg"}], [{"name": "transfer", "source": "vgg-clean"}],
            r"attacks\.surrogates: there is no 'vgg'.*Known: .*resnet34",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    surrogates: list[Any], attacks: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load_moved(tmp_path, surrogates, attacks)


@pytest.mark.parametrize(
    ("block", "key", "value"),
    [("explain", "suite", "patch"), ("transfer", "suite", "patch"), ("detect", "suites", {"patch": 0.05})],
)
def test_stages_that_need_a_ball_refuse_a_suite_of_patches(
    block: str, key: str, value: Any, tmp_path: Path
) -> None:
    params = preset()
    params["attacks"]["suites"]["patch"] = {"norm": "patch", "eps": [0.05], "attacks": [{"name": "patch"}]}
    assert load_changed(tmp_path, "attacks", params["attacks"]).attacks.suites["patch"].norm == "patch"
    with pytest.raises(UserError, match=rf"{block}\.{key}: the suite 'patch' attacks with patches"):
        check_params({**params, block: {**params[block], key: value}}, "params.yaml")

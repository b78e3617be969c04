"""A stage's settings hold its own overrides, the code of its objectives, and nothing of other stages."""

from pathlib import Path
from typing import Any

import pytest

from medrobust.errors import UserError
from medrobust.params.schema import Params, load_params
from medrobust.records import write_json
from medrobust.training.resolve import resolve_settings
from medrobust.training.settings import Settings, read_settings


@pytest.fixture
def params(root: Path) -> Params:
    return load_params(root / "params.yaml")


def resolve(params: Params, backbone: str = "resnet34", **changes: Any) -> dict[str, Settings]:
    """The settings with some keys of adv, train, tune or the model replaced (`adv={"eps": 0.1}`)."""
    blocks = {"model": params.models[backbone], "train": params.train, "adv": params.adv, "tune": params.tune}
    for name, values in changes.items():
        blocks[name] = type(blocks[name]).model_validate({**blocks[name].model_dump(), **values})
    return resolve_settings(backbone, **blocks)  # type: ignore[arg-type]


def changed(params: Params, **changes: Any) -> set[str]:
    one, two = resolve(params), resolve(params, **changes)
    return {stage for stage in one if one[stage] != two[stage]}


def test_a_change_reaches_only_the_stages_that_it_decides(params: Params) -> None:
    assert changed(params) == set()
    assert changed(params, adv={"eps": 0.005}) == {"adv_train"}
    assert changed(params, model={"adv": {"eps": 0.005}}) == {"adv_train"}
    assert changed(params, adv={"objective": "trades"}) == {"adv_train"}
    assert changed(params, tune={"trials": 9}) == {"tune"}
    assert changed(params, model={"train": {"lr": 1e-5}}) == {"tune", "train", "adv_train"}
    assert changed(params, train={"objective": "gce"}) == {"tune", "train", "adv_train"}
    robust = resolve(params, tune={"objective": "robust"})["tune"]
    assert robust.adv == params.adv.model_copy(update=params.models["resnet34"].adv)
    assert resolve(params, tune={"objective": "robust"}, adv={"eps": 0.5})["tune"] != robust


def test_settings_come_back_from_their_file(params: Params, tmp_path: Path) -> None:
    for name, settings in resolve(params, "efficientnet_b0").items():
        write_json(tmp_path / f"{name}.json", settings.model_dump())
        assert read_settings(tmp_path / f"{name}.json") == settings


def test_what_an_objective_needs_is_asked_for_before_any_training(params: Params) -> None:
    with pytest.raises(UserError, match=r"adv\.unlabelled: 0\.0 with objective ssat"):
        resolve(params, adv={"objective": "ssat"})
    with pytest.raises(UserError, match=r"adv\.unlabelled: 0\.5 with objective mixed"):
        resolve(params, adv={"unlabelled": 0.5})
    with pytest.raises(UserError, match=r"train\.objective: no objective 'mixed'"):
        resolve(params, train={"objective": "mixed"})
    assert resolve(params, adv={"objective": "ssat", "unlabelled": "folder"})["adv_train"].adv is not None

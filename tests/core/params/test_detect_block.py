"""Block `detect` and `models.B.detect`: the models that get detectors, and the suites that test them."""

from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.schema import Params, load_params
from tests.params import preset, save


def load_changed(folder: Path, changes: dict[str, Any], models: dict[str, list[str]]) -> Params:
    """The default parameters with changes in the block `detect`, and regimes in blocks of `models`."""
    content = preset()
    content["detect"] |= changes
    for name, regimes in models.items():
        content["models"][name]["detect"] = regimes
    return load_params(save(folder, content))


def test_a_backbones_block_selects_its_models(tmp_path: Path) -> None:
    params = load_changed(tmp_path, {"ensemble": ["adv"]}, {"dinov2": ["clean", "adv"], "resnet34": []})
    expected = [("dinov2", "clean"), ("dinov2", "adv"), ("ensemble", "adv")]
    assert params.detect.cells(params.models) == expected


def test_detection_is_off_where_the_key_is_left_out(tmp_path: Path) -> None:
    content = preset()
    for model in content["models"].values():
        model.pop("detect", None)
        model.pop("explain", None)
    params = load_params(save(tmp_path, content))
    assert params.detect.cells(params.models) == []
    assert not any(model.explain for model in params.models.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suites": {"pdg": 0.01}}, r"detect\.suites: there is no 'pdg'.*white_box"),
        ({"ensemble": ["clean"]}, r"detect\.ensemble: there is no 'clean'.*adv"),
        ({"detectors": {}}, r"detect\.detectors: empty, but resnet34-clean gets detectors\. Set it, or set "),
        ({"suites": {}}, r"detect\.suites: empty, but resnet34-clean gets detectors"),
        ({"seen": "fgsm"}, r"detect\.seen must be one of detect\.suites: white_box"),
        ({"suites": {"white_box": 0}}, r"detect\.suites: the radius must be above 0"),
        ({"detectors": {"g/m": {}}}, r"detect\.detectors\.g/m: got 'g/m'\. Use letters"),
        ({"fpr": 0}, r"detect\.fpr: got 0"),
        ({"adaptive": {**preset()["detect"]["adaptive"], "attacks": ["psychic"]}}, r"got 'psychic'.*joint"),
        ({"risk": {**preset()["detect"]["risk"], "under": -1}}, r"risk\.under: got -1"),
        ({"risk": {**preset()["detect"]["risk"], "shares": []}}, r"risk\.shares"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_changed(tmp_path, changes, {})


def test_an_ensemble_with_detectors_needs_suites(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"detect\.suites: empty, but ensemble-adv gets detectors"):
        load_changed(tmp_path, {"ensemble": ["adv"], "suites": {}}, {"resnet34": []})


def test_an_unknown_regime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"models\.dinov2\.detect\.0: got 'robust'\. .*'clean' or 'adv'"):
        load_changed(tmp_path, {}, {"dinov2": ["robust"]})

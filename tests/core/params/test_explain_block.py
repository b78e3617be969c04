"""Block `explain` and `models.B.explain`: the attack of the maps, and the backbones that are explained."""

from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.schema import Params
from tests.core.params.changed import load_changed
from tests.params import preset


def load_block(folder: Path, changes: dict[str, Any]) -> Params:
    """The default parameters with changes in the block `explain`."""
    return load_changed(folder, "explain", {**preset()["explain"], **changes})


def test_a_run_without_explanations_needs_no_radius(tmp_path: Path) -> None:
    models = {name: {**model, "explain": False} for name, model in preset()["models"].items()}
    assert load_changed(tmp_path, "models", models).explain.eps
    message = r"explain\.eps: 0, but resnet34 is explained\. Set .* models\.resnet34\.explain: false"
    with pytest.raises(UserError, match=message):
        load_block(tmp_path, {"eps": 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "pdg"}, r"explain\.suite: there is no 'pdg'.*white_box"),
        ({"suite": None}, r"explain\.suite: got None"),
        ({"top": 1}, r"explain\.top: got 1"),
        ({"grid": 0}, r"explain\.grid: got 0"),
        ({"drift_images": -1}, r"explain\.drift_images: got -1"),
        ({"image": 1}, r"explain\.image: unknown key.*images"),
    ],
)
def test_what_cannot_be_explained_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_block(tmp_path, changes)

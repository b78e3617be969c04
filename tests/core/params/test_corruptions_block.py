"""Block `corruptions` and `models.B.corrupt`: which corruptions, and what results are compared with."""

from pathlib import Path
from typing import Any, get_args

import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.corruptions import CHANNELS, CorruptionsParams
from medrobust.corruptions.registry import MODALITIES
from tests.core.params.changed import load_changed
from tests.params import preset


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"severities": [1, 6]}, r"corruptions\.severities\.1: got 6"),
        ({"severities": [0]}, r"corruptions\.severities\.0: got 0"),
        ({"severities": []}, r"corruptions\.severities"),
        ({"modality": "pet"}, r"corruptions\.modality: got 'pet'.*'mri'"),
        (
            {"modality": "photo"},
            r"corruptions\.modality: photo images have 3 channels, .*channels is 1\. Use mri or",
        ),
        ({"draws": 0}, r"corruptions\.draws: got 0"),
        ({"baseline": "resnet34-clean"}, r"corruptions\.baseline: .*'resnet34-clean'.*efficientnet_b0-clean"),
        ({"suite": "pdg"}, r"corruptions\.suite: there is no suite 'pdg' with the norm Linf\. Known: white_box"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_changed(tmp_path, "corruptions", {**preset()["corruptions"], **changes})


def test_a_suite_in_l2_is_not_drawn_beside_corruptions(tmp_path: Path) -> None:
    suite = {"norm": "L2", "eps": [0.5], "attacks": [{"name": "pgd_l2"}]}
    with pytest.raises(UserError, match=r"corruptions\.suite: .*'white_box' with the norm Linf\. Known: none"):
        load_changed(tmp_path, "attacks.suites.white_box", suite)


def test_a_run_without_corruptions_needs_neither_suite_nor_baseline(tmp_path: Path) -> None:
    models = {name: {**model, "corrupt": False} for name, model in preset()["models"].items()}
    content = {**preset()["corruptions"], "suite": "other", "baseline": "none"}
    folder = tmp_path / "params"
    folder.mkdir()
    with pytest.raises(UserError, match=r"corruptions\.baseline"):
        load_changed(folder, "corruptions", content)
    assert not any(model.corrupt for model in load_changed(folder, "models", models).models.values())


def test_severities_are_sorted_and_distinct() -> None:
    block = CorruptionsParams.model_validate({**preset()["corruptions"], "severities": [5, 1, 5]})
    assert block.severities == [1, 5]


def test_the_modalities_are_those_of_the_registry() -> None:
    assert {*get_args(CorruptionsParams.model_fields["modality"].annotation)} == {*MODALITIES} == {*CHANNELS}

"""Resolved suites: surrogates of the run come with the hash of their current weights."""

from pathlib import Path

import pytest

from medrobust.attacks.engine.evaluate import build_attack
from medrobust.attacks.engine.suite import read_suite, resolve_suite, write_surrogate
from medrobust.attacks.methods.transfer import Transfer
from medrobust.core.errors import UserError
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.records import file_hash, write_json

FOREIGN = {"source": "elsewhere", "sha256": "0" * 64}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A suite with two surrogates, one of which is a model of the run."""
    (tmp_path / "models" / "a" / "clean").mkdir(parents=True)
    (tmp_path / "models" / "a" / "clean" / "model.safetensors").write_bytes(b"weights")
    attacks = [{"name": "fgsm"}, {"name": "transfer", "source": "a-clean"}, {"name": "transfer", **FOREIGN}]
    suite = resolve_suite("s", SuiteParams(norm="Linf", eps=[0.1], attacks=attacks))
    write_json(tmp_path / "s" / "suite.json", suite)
    return tmp_path / "s"


def test_a_surrogate_is_the_folder_and_the_weights_of_its_stage(folder: Path) -> None:
    model = folder.parent / "models" / "a" / "clean"
    write_surrogate(model, folder / "a-clean.json")
    fgsm, ours, foreign = read_suite(folder)["attacks"]
    weights = file_hash(model / "model.safetensors")
    assert ours["hyperparameters"] == {"source": str(model), "sha256": weights}
    assert foreign["hyperparameters"] == FOREIGN
    assert fgsm["hyperparameters"] == {}
    attack = build_attack(ours, 0.1, "Linf")
    assert isinstance(attack, Transfer)
    assert attack.sha256 == weights
    (model / "model.safetensors").write_bytes(b"trained again")
    write_surrogate(model, folder / "a-clean.json")
    assert read_suite(folder)["attacks"][1]["hyperparameters"]["sha256"] != weights


def test_a_suite_from_elsewhere_runs_no_other_class_and_no_other_hyper_parameter() -> None:
    """Its file comes with `dvc pull`, past the stage that checks params.yaml."""
    for entry, message in (
        ({"name": "os:system", "hyperparameters": {}}, "no attack 'os:system'"),
        ({"name": "pgd", "hyperparameters": {"stepps": 3}}, "pgd.stepps: unknown hyper-parameter"),
        ({"name": "pgd", "hyperparameters": {"eps": 1.0}}, "pgd.eps: unknown hyper-parameter"),
        ({"name": "pgd", "hyperparameters": {"steps": "3"}}, "pgd.steps: got '3'"),
    ):
        with pytest.raises(UserError, match=message):
            build_attack(entry, 0.1, "Linf")


def test_a_surrogate_without_its_file_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"a-clean\.json: no such file"):
        read_suite(folder)

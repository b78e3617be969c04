"""Attacked patients: who is attacked, by what, and what the model answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medrobust.attacks.engine.all_steps import attacks_with_all_steps, strongest
from medrobust.core.lineage import MADE_ON, suite_hash
from medrobust.core.params.transfer import TransferParams
from medrobust.core.records import read_table, write_json
from medrobust.models.aggregates import MeanLogProbability
from medrobust.models.card import weights_hash
from medrobust.models.patient import PatientModel
from medrobust.patients.all_steps import attacked_predictions, write_attacked_predictions
from medrobust.patients.subsets import patient_groups
from tests.patients.cohort import classifier, one_group, splits, without
from tests.patients.test_evaluate import run

SUITE: dict[str, Any] = {
    "name": "s", "norm": "Linf", "eps": [0.01, 0.03], "give_up": False, "code": {},
    "attacks": [
        {"name": "pgd", "hyperparameters": {"steps": 3, "loss": "margin"}},
        {"name": "fgsm", "hyperparameters": {}},
    ],
}  # fmt: skip


def model() -> PatientModel:
    return PatientModel(classifier(), MeanLogProbability(), 1).eval()


def test_the_answers_are_those_to_the_strongest_images_with_all_steps() -> None:
    patients, group = model(), one_group(splits())
    table = attacked_predictions(patients, [group], SUITE, 0.03, count=len(group), seed=5)
    images, labels, seeds = group.fetch(np.arange(len(group)), 5, torch.device("cpu"))
    made = strongest(patients, attacks_with_all_steps(SUITE, 0.03), images, labels, seeds)
    assert (made - images).abs().max() <= 0.03 + 1e-6
    with torch.no_grad():
        expected = patients(made).double().log_softmax(1).numpy()
    found = table[["logprob_0", "logprob_1", "logprob_2"]].to_numpy()
    assert np.allclose(found, expected, atol=1e-5)
    assert table["pred"].tolist() == expected.argmax(1).tolist()
    assert table["patient"].tolist() == group.ids.tolist()
    with torch.no_grad():
        clean = patients(images).double().log_softmax(1).numpy()
    rows = np.arange(len(group))
    assert found[rows, group.labels].mean() < clean[rows, group.labels].mean()


def test_at_most_so_many_patients_are_attacked_evenly_spaced_over_all_groups() -> None:
    data = splits()
    left_out = data.table.loc[data.table["split"] == "test", "id"].iloc[:1].tolist()
    groups = patient_groups(without(data, left_out), "test")  # one patient has three images
    assert [group.images_per_row for group in groups] == [3, 4]
    names = [*groups[0].ids, *groups[1].ids]
    table = attacked_predictions(model(), groups, SUITE, 0.01, count=3, seed=0)
    assert table["patient"].tolist() == [names[0], names[(len(names) - 1) // 2], names[-1]]
    assert table["images"].tolist() == [3, 4, 4]


def test_a_suite_with_an_attack_on_single_images_gives_no_rows() -> None:
    suite = {**SUITE, "attacks": [{"name": "universal", "hyperparameters": {}}]}
    table = attacked_predictions(model(), [one_group(splits())], suite, 0.01, count=9, seed=0)
    assert len(table) == 0
    assert {"patient", "label", "pred", "images", "logprob_2"} <= set(table)


def test_the_file_says_what_it_was_made_on_and_is_empty_where_nothing_is_attacked(
    network: Path, tmp_path: Path
) -> None:
    write_json(tmp_path / "suite" / "suite.json", SUITE)
    fitted = run(network, splits(), tmp_path / "a", "mean").model
    unfitted = run(network, splits(), tmp_path / "b", "none").model

    def written(folder: Path, images: int) -> pd.DataFrame:
        params = TransferParams(suite="s", eps=0.03, member_eps=[], images=images)
        write_attacked_predictions(folder, splits(), tmp_path / "suite", tmp_path / "t.parquet", params, seed=0)
        return read_table(tmp_path / "t.parquet")

    table = written(fitted, 4)
    assert len(table) == 4
    expected = {**splits().hashes, "weights": weights_hash(network), "suite": suite_hash(SUITE)}
    assert table.attrs[MADE_ON] == expected
    assert len(written(fitted, 0)) == len(written(unfitted, 4)) == 0
    assert "suite" not in written(unfitted, 4).attrs[MADE_ON]

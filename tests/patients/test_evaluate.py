"""The stage `patient`: metrics per patient, or the reason why the data have no patient unit."""

from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON
from medrobust.core.params.patient import PatientParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import read_metrics, read_table
from medrobust.data.store import SplitStore
from medrobust.models.card import not_fitted
from medrobust.models.folder import load
from medrobust.patients.evaluate import PatientOutputs, run_patient_stage
from tests.params import default_block
from tests.patients.cohort import splits, with_manifest


def run(network: Path, data: SplitStore, folder: Path, aggregate: str) -> PatientOutputs:
    outs = PatientOutputs(folder / "model", folder / "p.parquet", folder / "m.json")
    params = default_block(
        PatientParams, "patient", aggregate=aggregate, epochs=2, hidden=4, attacked_images=[1, 2]
    )
    run_patient_stage(network, data, outs, params, default_block(ReportParams, "report", bootstrap=50), seed=0)
    return outs


@pytest.mark.parametrize("aggregate", ["mean", "gru"])
def test_the_record_is_that_of_the_table(network: Path, tmp_path: Path, aggregate: str) -> None:
    outs = run(network, splits(), tmp_path, aggregate)
    record, table = read_metrics(outs.metrics), read_table(outs.predictions)
    assert table.attrs[MADE_ON] == record[MADE_ON]
    test = table[table["split"] == "test"]
    assert record["n"] == record["patients"] == len(test) == test["patient"].nunique() == 6
    assert abs(record["balanced_accuracy"] - balanced_accuracy_score(test["label"], test["pred"])) < 1e-6
    assert record["images_per_patient"] == [4, 4]
    assert set(record["images_attacked"]) == {"1", "2"}
    assert (test["images"] == 4).all()


@pytest.mark.parametrize(("aggregate", "reason"), [("none", "aggregate is none"), ("mean", "have no patient id")])
def test_without_a_patient_unit_the_reason_is_written(
    network: Path, tmp_path: Path, aggregate: str, reason: str
) -> None:
    data = splits()
    data = (
        with_manifest(data, patient=pd.Series("", index=data.store.manifest.index))
        if aggregate == "mean"
        else data
    )
    outs = run(network, data, tmp_path, aggregate)
    assert reason in read_metrics(outs.metrics)["not_fitted"]
    assert reason in str(not_fitted(outs.model))
    with pytest.raises(UserError, match=rf"is no model of patients: .*{reason}.*Load the checkpoint"):
        load(outs.model)
    assert not len(read_table(outs.predictions))

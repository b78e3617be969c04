"""A cell writes the record of a model on external images and patients, and the tables behind it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medrobust.core.lineage import MADE_ON, suite_hash
from medrobust.core.params.external import ExternalSetParams
from medrobust.core.records import read_json, read_metrics, read_table, write_json
from medrobust.data.store import Header, ImageStore, SplitStore
from medrobust.external.evaluate import Settings
from medrobust.external.plan import make_plan
from medrobust.external.run import ModelFolders, evaluate_model
from medrobust.inference.evaluate import evaluate
from medrobust.models.card import weights_hash
from medrobust.models.use import GUARD, PATIENT
from tests.inference.model_folder import SIDE, SUITE
from tests.small import CLASSES, make_subset

PLAN: dict[str, Any] = {"suites": [SUITE], "patient_suites": [SUITE], "code": {}}
HASHES = {"data": "d", "split": "s", "external": "e"}


def external(patients: int = 6) -> SplitStore:
    """Four images per patient, all of them test images; others were left out or could not be read."""
    subset = make_subset("x", patients, 4)
    count, labels = len(subset), [CLASSES[k] for k in subset.labels]
    manifest = pd.DataFrame({
        "id": subset.ids, "sha256": "", "label": labels, "patient": subset.patients, "slice": np.arange(count) % 4,
        "kind": "real", "parent": "", "published_split": "",
    })  # fmt: skip
    header = Header(
        "test", CLASSES, False, SIDE, 1, count, patients, {}, "", "", "", "", left_out={"other": 2},
        skipped=[{"id": "Doe.png", "reason": "broken"}],
    )  # fmt: skip
    table = pd.DataFrame({"id": subset.ids, "split": "test", "label": labels, "patient": subset.patients})
    return SplitStore(ImageStore(subset.store_images, manifest, header), table.assign(reason=""))


def run_cell(model: ModelFolders, folder: Path, data: SplitStore) -> dict[str, Any]:
    """The record of a model that is evaluated on the data."""
    settings = Settings(ordered=False, resamples=20, confidence=0.9, seed=0)
    evaluate_model(model, data, PLAN, settings, HASHES, folder / "b-m-adv.json", folder / "tables")
    return read_metrics(folder / "b-m-adv.json")


@pytest.fixture(scope="module")
def cell(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The record of a model with guard and patient model, and the folder that it was written to."""
    folder = tmp_path_factory.mktemp("cell")
    model = ModelFolders(model_folder, model_folder / GUARD, model_folder / PATIENT)
    return run_cell(model, folder, external()), folder


def test_the_record_has_images_patients_detectors_and_what_it_was_made_on(
    cell: tuple[dict[str, Any], Path], model_folder: Path
) -> None:
    record, folder = cell
    assert (record["n"], record["patients"], record["left_out"], record["skipped"]) == (24, 6, {"other": 2}, 1)
    assert set(record["attacks"]["pgd"]) == {"0.1", "0.5"}
    assert set(record["detectors"]) == {"gmm", "kde"}
    assert record["detectors"]["gmm"]["rejected_attacked"].keys() == {"pgd"}
    assert record["patients_record"]["n"] == 6
    assert set(record["patients_record"]["attacks"]["pgd"]) == {"0.1", "0.5"}
    suites = {"pgd": suite_hash(SUITE)}
    assert record[MADE_ON] == {"weights": weights_hash(model_folder), **HASHES, "suites": suites}
    shown = {key for key, value in read_json(folder / "b-m-adv.json").items() if isinstance(value, float)}
    assert shown >= {"balanced_accuracy", "pgd@0.1", "pgd@0.5"}


def test_no_file_that_git_tracks_names_an_image_or_a_patient(cell: tuple[dict[str, Any], Path]) -> None:
    text = (cell[1] / "b-m-adv.json").read_text()
    assert not [name for name in (*external().subset("test").ids, "Doe", "x-p0") if name in text]


def test_the_tables_have_every_image_and_patient(cell: tuple[dict[str, Any], Path]) -> None:
    record, folder = cell
    tables = {path.stem: read_table(path) for path in (folder / "tables").iterdir()}
    assert set(tables) == {"b-m-adv-clean", "b-m-adv-pgd", "b-m-adv-patients-clean", "b-m-adv-patients-pgd"}
    clean = tables["b-m-adv-clean"]
    assert (clean["pred"] == clean["label"]).mean() == pytest.approx(record["clean"]["accuracy"], abs=1e-6)
    assert len(tables["b-m-adv-patients-clean"]) == 6


def test_the_command_gives_the_same_numbers(
    cell: tuple[dict[str, Any], Path], model_folder: Path, tmp_path: Path
) -> None:
    """Without suites: the seed of an attacked image comes from its name, which differs."""
    from PIL import Image

    subset = external().subset("test")
    rows = []
    for number, (label, patient) in enumerate(zip(subset.labels, subset.patients, strict=True)):
        Image.fromarray(subset.store_images[number]).save(tmp_path / f"{number}.png")
        rows.append({"path": f"{number}.png", "label": CLASSES[label], "patient": patient})
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    found = evaluate(tmp_path / "t.csv", model_folder, [])
    record = cell[0]
    assert found["counts"] == record["counts"]
    for name in ("balanced_accuracy", "balanced_accuracy_ci", "auroc", "auroc_ci"):
        assert found["clean"][name] == pytest.approx(record["clean"][name], abs=1e-6), name


def test_without_guard_or_patient_unit_the_reason_stands_in_the_record(model_folder: Path, tmp_path: Path) -> None:
    data = external(3)
    alone = data.store.manifest.assign(patient=data.store.manifest["id"])
    single = SplitStore(ImageStore(data.store.images, alone, data.store.header), data.table)
    model = ModelFolders(model_folder, tmp_path / "none", model_folder / PATIENT)
    record = run_cell(model, tmp_path / "a", single)
    assert record["detectors"] == {}
    assert record["patients_record"] == {"not_fitted": "no patient has more than one image"}
    write_json(tmp_path / "unfitted" / "card.json", {"patient": None, "not_fitted": "patient.aggregate is none"})
    record = run_cell(ModelFolders(model_folder, tmp_path / "none", tmp_path / "unfitted"), tmp_path / "b", data)
    assert record["patients_record"] == {"not_fitted": "patient.aggregate is none"}


def test_the_plan_has_the_suites_that_a_set_names_with_their_code(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        write_json(tmp_path / name / "suite.json", {**SUITE, "name": name, "code": {f"attacks/{name}": "h"}})
    values = {"source": "archive", "classes": {"x": None}, "suites": ["two"], "patient_suites": ["one"]}
    found = make_plan(ExternalSetParams.model_validate(values), tmp_path)
    assert [suite["name"] for suite in found["suites"]] == ["two"]
    assert [suite["name"] for suite in found["patient_suites"]] == ["one"]
    assert found["code"] == {"attacks/one": "h", "attacks/two": "h"}

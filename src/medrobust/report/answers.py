"""What each model answered on each image: read the predictions and attempts, and say which answers are right."""

from pathlib import Path
from typing import Any

import pandas as pd

from medrobust.attacks.engine.attempts import worst_case
from medrobust.report.collect import Folders, Reader
from medrobust.report.run import Model, Run, method_label, name_of


def read_answers(run: Run, folders: Folders) -> None:
    """Put the answers of all models into `run.answers`, and the ensemble's confusion into `run.confusion`.

    Answers whose record is missing, or of another run, are not looked for: the record is listed already.
    """
    reader, answers = Reader(run), run.answers
    answers.radii.update({suite: radius for suite in run.suites if (radius := common_radius(run, suite))})
    for model in run.models():
        if folders.predictions and run.clean_record(*model):
            path = folders.predictions / f"{name_of(*model)}.parquet"
            if (table := reader.parquet(path, run.hashes.of(model))) is not None:
                answers.predictions[model] = table
        if folders.attacks:
            known = [suite for suite in run.suites if (*model, suite) in run.attacks.records]
            _read_attacked(run, reader, model, model, folders.attacks / "-".join(model), known)
        _read_patients(run, reader, folders, model)
    if folders.attacks:
        for method in run.ensemble.attacked:
            label, weights = (method_label(method), run.ensemble.regime), (method, run.ensemble.regime)
            known = [suite for suite in run.suites if (method, suite) in run.ensemble.attacks]
            _read_attacked(run, reader, label, weights, folders.attacks / "methods" / method, known)
    if folders.scores and run.ensemble.matrices:
        answers.scores = reader.parquet(folders.scores, run.hashes.of_all_models() | {"suites": run.hashes.suites})
    _add_ensembles_confusion(run)
    _leave_out_unknown_classes(run)


def _leave_out_unknown_classes(run: Run) -> None:
    """Classes have no names if header or split are missing or of other data; that is listed already."""
    known, answers = len(run.classes()), run.answers
    named: tuple[dict[Any, pd.DataFrame], ...] = (
        answers.predictions, answers.attacked, answers.patients, answers.patients_scored, answers.patients_attacked
    )  # fmt: skip
    for tables in named:
        for key in [key for key, table in tables.items() if table["label"].max() >= known]:
            del tables[key]
    if answers.scores is not None and answers.scores["label"].max() >= known:
        answers.scores = None


def _read_attacked(
    run: Run, reader: Reader, label: Model, weights: Model, folder: Path, suites: list[str]
) -> None:  # fmt: skip
    """The worst case of each suite; `label` names the model in the report, `weights` in the hashes."""
    for suite in suites:
        if (radius := run.answers.radii.get(suite)) is None:
            continue
        attempts = reader.parquet(folder / f"{suite}.parquet", run.hashes.of(weights, suite))
        if attempts is not None:
            grid = [float(eps) for eps in run.attacks.of_suite(suite)[1] if float(eps) <= float(radius)]
            run.answers.attacked[*label, suite] = right_under_attack(attempts, grid)


def _read_patients(run: Run, reader: Reader, folders: Folders, model: Model) -> None:
    """The answers of a model on patients, clean and attacked; nothing is looked for without a patient unit."""
    answers, transfer, name = run.answers, run.ensemble.transfer, name_of(*model)
    if folders.predictions and "n" in run.patients.records.get(model, {}):
        path = folders.predictions / "patients" / f"{name}.parquet"
        if (table := reader.parquet(path, run.hashes.of(model))) is not None:
            answers.patients[model] = table.assign(id=table["patient"])
        if folders.transferred and "suite" in transfer:
            path, expected = folders.transferred / f"{name}.parquet", run.hashes.of(model, transfer["suite"])
            if (table := reader.parquet(path, expected)) is not None:
                answers.patients_scored[model] = table
    if folders.attacks:
        _read_attacked_patients(run, reader, model, folders.attacks / "patients")


def _read_attacked_patients(run: Run, reader: Reader, model: Model, folder: Path) -> None:
    """The worst case of each suite that attacks all images of a patient."""
    answers = run.answers
    for suite in run.patients.suites:
        grid = run.patients.attacks.get((*model, suite), {}).get("robust_accuracy", {})
        radius = answers.radii.get(suite)
        if radius is None or radius not in grid:
            continue
        path = folder / f"{name_of(*model)}-{suite}.parquet"
        if (attempts := reader.parquet(path, run.hashes.of(model, suite))) is not None:
            radii = sorted(float(eps) for eps in grid if float(eps) <= float(radius))
            answers.patients_attacked[*model, suite] = right_under_attack(attempts, radii)


def common_radius(run: Run, suite: str) -> str | None:
    """The radius, among those of all models, that is nearest to the largest training radius; None without one."""
    grids = [set(record["robust_accuracy"]) for record in run.attacks.of_suite(suite)[0].values()]
    wanted = max(run.training_eps().values(), default=0.0)
    shared = sorted(set.intersection(*grids), key=float) if grids else []
    return min(shared, key=lambda eps: abs(float(eps) - wanted), default=None)


def right_clean(predictions: pd.DataFrame) -> pd.DataFrame:
    """The test images of a table of predictions, with `right`: whether the model classifies them correctly."""
    test = predictions[predictions["split"] == "test"]
    return test.assign(right=test["pred"] == test["label"])


def right_under_attack(attempts: pd.DataFrame, radii: list[float]) -> pd.DataFrame:
    """The worst case of each image at the last of rising radii, with `right`: whether no attack fools the model.

    The other radii only refine `fooled_at`.
    """
    worst = worst_case(attempts, radii)
    last = worst[worst["eps"] == radii[-1]]
    return last.assign(right=~last["fooled"])


def _add_ensembles_confusion(run: Run) -> None:
    """The ensemble's answers on clean test images, by class names; the stage `train` writes those of backbones."""
    table = run.answers.predictions.get(run.ensemble.model)
    if table is None:
        return
    names, test = dict(enumerate(run.classes())), right_clean(table)
    confusion = pd.DataFrame({"actual": test["label"].map(names), "predicted": test["pred"].map(names)})
    if not confusion.isna().any(axis=None):  # otherwise the header or the split is missing, which is listed
        run.confusion[run.ensemble.model] = confusion

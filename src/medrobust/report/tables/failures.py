"""The worst errors, chosen by rule: by patient, by distance of the grades, and by attack. No patient's id."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from medrobust.cases.choice import WORST, worst_wrong
from medrobust.report.answers import right_clean
from medrobust.report.run import Run
from medrobust.report.scores import log_probabilities
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.table import NONE, Table, number
from medrobust.report.templates import table_note

#: Rows of the first table.
PATIENTS = 8
#: Head of the column that names images of the page of single images.
SHOWN = "on cases.html"


def failure_tables(run: Run) -> list[Table]:
    """Patients, images and attacks; [] without answers. Rows link to images that cases.html shows."""
    numbers = patient_numbers(run)
    return [_patients(run, numbers), _images(run, numbers), _attacks(run, numbers)] if len(numbers) else []


def _shown(run: Run, ids: Iterable[str]) -> list[str]:
    """The cell of `SHOWN`: those of some images that the page of single images shows; [] without such a page."""
    found = [f"image {run.cases[name]}" for name in ids if name in run.cases]
    return [", ".join(found) or NONE] if run.cases else []


def _table(run: Run, title: str, columns: list[str], rows: list[list[str]], note: str, folded: bool) -> Table:
    return Table(title, [*columns, *([SHOWN] if run.cases else [])], rows, note, folded=folded, cases=True)


def patient_numbers(run: Run) -> pd.DataFrame:
    """Index `id` of test images: the patient's running `number` from 1, and `place` (`2 of 4`) of the image.

    Numbers follow the order of the test images in data/split.csv, so that they tell nothing without the data.
    """
    tables = [right_clean(table) for table in run.answers.predictions.values()]
    if not tables:
        return pd.DataFrame()
    test = tables[0].set_index("id")
    rank, size = test.groupby("patient").cumcount() + 1, test.groupby("patient")["label"].transform("size")
    place = [f"{k} of {n}" for k, n in zip(rank, size, strict=True)]
    return pd.DataFrame({"number": pd.factorize(test["patient"])[0] + 1, "place": place}, index=test.index)


def _distance(run: Run, table: pd.DataFrame, column: str = "pred") -> pd.Series:
    """Grades between answer and truth; 1 for any wrong class where classes have no order."""
    away = (table[column] - table["label"]).abs()
    return away if run.header.get("ordered") else away.clip(upper=1)


def _patients(run: Run, numbers: pd.DataFrame) -> Table:
    """Patients whose clean images are wrong most often over all models; ties: the larger distance of grades."""
    tests = [right_clean(table) for table in run.answers.predictions.values()]
    answers = pd.concat([test.assign(away=_distance(run, test)) for test in tests], ignore_index=True)
    answers = answers[answers["id"].isin(numbers.index)]
    answers["number"] = numbers.loc[answers["id"], "number"].to_numpy()
    by_patient = answers.groupby("number", sort=True)
    shares = pd.DataFrame({"wrong": 1 - by_patient["right"].mean(), "away": by_patient["away"].max()})
    worst = shares[shares["wrong"] > 0].sort_values(["wrong", "away"], ascending=False, kind="stable")[:PATIENTS]
    classes, rows = run.classes(), []
    for patient, share in worst.iterrows():
        own = answers[answers["number"] == patient]
        wrong = own.loc[~own["right"], "pred"].mode()
        cells = [f"{share['wrong']:.0%}", classes[wrong.iloc[0]], f"{share['away']:.0f}"]
        attacked = [_wrong_under(run, suite, own["id"]) for suite in run.answers.radii]
        images = str(own["id"].nunique())
        about = [str(patient), classes[own["label"].mode().iloc[0]], images, *cells, *attacked]
        rows.append([*about, *_shown(run, own["id"].unique())])
    columns = ["test patient", "class", "images", "wrong answers, clean", "most often as", "largest distance"]
    columns += [f"wrong, {suite} ε {radius}" for suite, radius in run.answers.radii.items()]
    note = table_note("failed_patients", models=len(tests), limit=PATIENTS, cases=len(run.cases))
    return _table(run, "Patients that most models get wrong", columns, rows, note, folded=False)


def _wrong_under(run: Run, suite: str, ids: pd.Series) -> str:
    """Share of wrong answers of all models on some images under a suite."""
    tables = [table for (*_, name), table in run.answers.attacked.items() if name == suite]
    right = [table.loc[table["id"].isin(ids), "right"] for table in tables]
    return f"{1 - pd.concat(right).mean():.0%}" if right else NONE


def _images(run: Run, numbers: pd.DataFrame) -> Table:
    """Per model the wrong answers with the largest distance of the grades; ties: the higher confidence."""
    classes, rows = run.classes(), []
    for (model, regime), predictions in run.answers.predictions.items():
        test = right_clean(predictions)
        test = test[test["id"].isin(numbers.index)]
        sure, ordered = log_probabilities(test).max(1), bool(run.header.get("ordered"))
        worst = worst_wrong(test["label"].to_numpy(), test["pred"].to_numpy(), sure, ordered=ordered)
        test = test.assign(away=_distance(run, test), sure=np.exp(sure))
        for row in test.iloc[worst].to_dict("records"):
            known = numbers.loc[row["id"]]
            answer = [classes[row["label"]], classes[row["pred"]], str(row["away"]), number(row["sure"])]
            rows.append(
                [model, TRAINING[regime], str(known["number"]), known["place"], *answer, *_shown(run, [row["id"]])]
            )
    columns = ["model", "training", "test patient", "image", "class", "answer", "distance", "confidence"]
    note = table_note("failed_images", limit=WORST, cases=len(run.cases))
    return _table(run, "Worst wrong answers, clean", columns, rows, note, folded=True)


def _attacks(run: Run, numbers: pd.DataFrame) -> Table:
    """Per model and attack: how many images it fools first, and the one that falls at the smallest radius."""
    classes, rows = run.classes(), []
    for (model, regime, suite), worst in run.answers.attacked.items():
        hit = worst["fooled"] & (worst["fooled_by"] != "natural") & worst["id"].isin(numbers.index)
        fooled = worst[hit].assign(away=_distance(run, worst[hit], "adv_pred"))
        for attack, images in fooled.groupby("fooled_by", sort=True):
            first = images.sort_values(["fooled_at", "away"], ascending=[True, False], kind="stable").iloc[0]
            known = numbers.loc[first["id"]]
            count = f"{len(images)} of {len(worst)}"
            case = [f"{first['fooled_at']:g}", str(known["number"]), known["place"]]
            rows.append(
                [model, TRAINING[regime], suite, str(attack), count, *case, classes[first["label"]],
                 classes[first["adv_pred"]], *_shown(run, [first["id"]])]
            )  # fmt: skip
    columns = ["model", "training", "suite", "attack", "images fooled", "smallest ε", "test patient", "image"]
    note = table_note("failed_attacks")
    return _table(run, "What each attack fools first", [*columns, "class", "becomes"], rows, note, folded=True)

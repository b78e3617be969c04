"""Compare all models pairwise on the same test images and patients, and robust with clean training by backbone.

Families of tests (Holm): all pairs of one comparison; all planned comparisons of one table and unit.
"""

from dataclasses import replace
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from medrobust.core.paired import Difference, holm, paired_differences
from medrobust.report.answers import right_clean
from medrobust.report.run import Comparison, Model, Run

K = TypeVar("K")
#: Of clean images and of attacked ones; the same measures as in the first table.
CLEAN, ATTACKED = "balanced accuracy", "robust accuracy"
#: In place of a corruption: all of them.
ALL = "all corruptions"


def compare_models(run: Run, *, resamples: int, confidence: float) -> None:
    """Fill `run.comparisons`: by image, then by patient; each clean first, then every suite at its radius."""
    answers = run.answers
    settings: dict[str, Any] = {"resamples": resamples, "confidence": confidence}
    for unit, clean, attacked in (
        ("image", answers.predictions, answers.attacked), ("patient", answers.patients, answers.patients_attacked),
    ):  # fmt: skip
        tables = {model: right_clean(table) for model, table in clean.items()}
        found = [_compare(unit, "clean", CLEAN, tables, **settings)]
        for suite, radius in answers.radii.items():
            tables = {(model, regime): table for (model, regime, name), table in attacked.items() if name == suite}
            found.append(_compare(unit, f"{suite} ε {radius}", ATTACKED, tables, **settings))
        run.comparisons.extend(comparison for comparison in found if comparison.pairs)


def _compare(
    unit: str, images: str, measure: str, tables: dict[Model, pd.DataFrame], *, resamples: int, confidence: float
) -> Comparison:  # fmt: skip
    """The differences of all pairs, the later model minus the earlier; images that one lacks do not count."""
    models, numbers = list(tables), [*combinations(range(len(tables)), 2)]
    n, patients, differences = _differences(
        list(tables.values()), [(b, a) for a, b in numbers], ["id"],
        balanced=measure == CLEAN, resamples=resamples, confidence=confidence,
    )  # fmt: skip
    pairs = {(models[b], models[a]): found for (a, b), found in zip(numbers, differences, strict=False)}
    return Comparison(unit, images, measure, models, n, patients, pairs)


def _differences(
    tables: list[pd.DataFrame], pairs: list[tuple[int, int]], keys: list[str], *, balanced: bool, resamples: int,
    confidence: float,
) -> tuple[int, int, list[Difference]]:  # fmt: skip
    """Rows that all tables have (by `keys`), their patients, and the difference of each pair of tables.

    Tables have `label`, `patient` and `right`. There are no differences without two tables with common rows.
    """
    columns = [table.set_index(keys)["right"].rename(str(k)) for k, table in enumerate(tables)]
    right = pd.concat(columns, axis=1, join="inner") if columns else pd.DataFrame()
    if len(tables) < 2 or right.empty:
        return 0, 0, []
    about = tables[0].set_index(keys).loc[right.index]
    patients = about["patient"].to_numpy().astype(str)
    found = paired_differences(
        right.to_numpy(bool), about["label"].to_numpy(), patients, pairs,
        balanced=balanced, resamples=resamples, confidence=confidence,
    )  # fmt: skip
    return len(right), len(np.unique(patients)), found


def gains_of_robust_training(run: Run, unit: str) -> dict[tuple[str, str], Difference]:
    """(backbone, images) -> adversarial minus clean training; all of one unit are one family of tests.

    These comparisons are planned: each adversarial model started from its clean one.
    """
    return as_family({
        (backbone, comparison.images): pair
        for backbone in run.backbones
        for comparison in run.comparisons
        if comparison.unit == unit
        and (pair := comparison.pairs.get(((backbone, "adv"), (backbone, "clean"))))
    })  # fmt: skip


def compare_under_corruptions(run: Run, *, resamples: int, confidence: float) -> None:
    """Fill `run.corruptions.gains`: adversarial minus clean training in balanced accuracy over all severities.

    All of one unit are one family of planned tests. Rows of one image or patient, one per corruption and severity,
    belong to one patient, as in all comparisons.
    """
    for unit, tables in (("image", run.answers.corrupted), ("patient", run.answers.patients_corrupted)):
        found: dict[tuple[str, str], Difference] = {}
        for backbone in run.backbones:
            both = [tables.get((backbone, regime), pd.DataFrame()) for regime in ("adv", "clean")]
            if any(table.empty for table in both):
                continue
            both = [table.assign(right=table["pred"] == table["label"]) for table in both]
            for name in (ALL, *dict.fromkeys(both[0]["corruption"])):
                parts = [table if name == ALL else table[table["corruption"] == name] for table in both]
                *_, differences = _differences(
                    parts, [(0, 1)], ["id", "corruption", "severity"],
                    balanced=True, resamples=resamples, confidence=confidence,
                )  # fmt: skip
                if differences:
                    found[backbone, name] = differences[0]
        run.corruptions.gains[unit] = as_family(found)


def as_family(found: dict[K, Difference]) -> dict[K, Difference]:
    """The differences with p-values that are corrected for all of them."""
    corrected = holm([pair.p for pair in found.values()])
    return {key: replace(pair, p_holm=p) for (key, pair), p in zip(found.items(), corrected, strict=True)}

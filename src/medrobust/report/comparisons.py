"""Compare all models pairwise on the same test images, clean and under each suite."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.paired import Difference, holm, paired_differences
from medrobust.report.answers import right_clean
from medrobust.report.run import Comparison, Model, Run

#: Of clean images and of attacked ones; the same measures as in the first table.
CLEAN, ATTACKED = "balanced accuracy", "robust accuracy"


def compare_models(run: Run, *, resamples: int, confidence: float) -> None:
    """Fill `run.comparisons`: clean images first, then every suite at its radius in `run.answers`."""
    answers = run.answers
    tables = {model: right_clean(table) for model, table in answers.predictions.items()}
    settings: dict[str, Any] = {"resamples": resamples, "confidence": confidence}
    found = [_compare("clean", CLEAN, tables, **settings)]
    for suite, radius in answers.radii.items():
        tables = {(model, regime): table for (model, regime, name), table in answers.attacked.items()
                  if name == suite}  # fmt: skip
        found.append(_compare(f"{suite} ε {radius}", ATTACKED, tables, **settings))
    run.comparisons.extend(comparison for comparison in found if comparison.pairs)


def _compare(
    images: str, measure: str, tables: dict[Model, pd.DataFrame], *, resamples: int, confidence: float
) -> Comparison:  # fmt: skip
    """The differences of all pairs, the later model minus the earlier; images that one lacks do not count."""
    models = list(tables)
    columns = [tables[model].set_index("id")["right"].rename(str(k)) for k, model in enumerate(models)]
    right = pd.concat(columns, axis=1, join="inner") if columns else pd.DataFrame()
    if len(models) < 2 or right.empty:
        return Comparison(images, measure, models, 0, 0, {})
    about = tables[models[0]].set_index("id").loc[right.index]
    patients, numbers = about["patient"].to_numpy().astype(str), [*combinations(range(len(models)), 2)]
    differences = paired_differences(
        right.to_numpy(bool), about["label"].to_numpy(), patients, [(b, a) for a, b in numbers],
        balanced=measure == CLEAN, resamples=resamples, confidence=confidence,
    )  # fmt: skip
    pairs = {(models[b], models[a]): found for (a, b), found in zip(numbers, differences, strict=True)}
    return Comparison(images, measure, models, len(right), len(np.unique(patients)), pairs)


def gains_of_robust_training(run: Run) -> dict[tuple[str, str], Difference]:
    """(backbone, images) -> adversarial minus clean training; all of them are one family of tests.

    These comparisons are planned: each adversarial model started from its clean one.
    """
    found = {
        (backbone, comparison.images): pair
        for comparison in run.comparisons
        for backbone in run.backbones
        if (pair := comparison.pairs.get(((backbone, "adv"), (backbone, "clean"))))
    }
    corrected = holm([pair.p for pair in found.values()])
    return {key: replace(pair, p_holm=p) for (key, pair), p in zip(found.items(), corrected, strict=True)}

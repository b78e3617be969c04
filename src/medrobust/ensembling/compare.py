"""Compare all ensemble methods on predictions that exist already: no image is attacked or predicted again."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from medrobust.core import metrics
from medrobust.core.errors import UserError
from medrobust.core.params.ensemble import EnsembleParams
from medrobust.core.params.report import ReportParams
from medrobust.core.reliability import calibration
from medrobust.data.store import Subset
from medrobust.ensembling.fit import tuned_method
from medrobust.ensembling.member_predictions import MemberPredictions, log_losses
from medrobust.ensembling.registry import METHODS
from medrobust.models.combination import Combination


@dataclass(frozen=True)
class MethodComparison:
    """The result of each method in `METHODS`.

    Attributes:
        records: method -> `val_log_loss`, `val_robust_log_loss`, `val_balanced_accuracy`, `val_robust_accuracy`
            (each image is predicted by a combination that was fitted, and whose penalty was selected, without its
            patient; or `val_missing`: why no such combination can be fitted), and `test_...` with intervals over
            patients; or only `not_fitted`: why the validation images do not allow the method.
        combinations: method -> what it fits to all validation images, without methods that were not fitted.
    """

    records: dict[str, dict[str, Any]]
    combinations: dict[str, Combination]


def compare(
    predictions: MemberPredictions,
    test: Subset,
    logprobs: np.ndarray,
    params: EnsembleParams,
    report: ReportParams,
) -> MethodComparison:
    """Evaluate every method on validation images (out of fold) and on clean test images.

    `logprobs` are the members' log-probabilities, M×n×K, on the test images. `params.method` is not used.
    """
    comparison = MethodComparison({}, {})
    for name in METHODS:
        try:
            combination = comparison.combinations[name] = tuned_method(name, predictions, params)(predictions)
        except UserError as error:
            comparison.records[name] = {"not_fitted": error.found}
        else:
            validation = _out_of_fold(predictions, name, params)
            comparison.records[name] = {**validation, **_on_test(combination, test, logprobs, report)}
    return comparison


def _out_of_fold(predictions: MemberPredictions, name: str, params: EnsembleParams) -> dict[str, Any]:
    """Scores on patients that were used neither to fit the method nor to select its penalty (nested folds)."""
    clean, robust = np.empty_like(predictions.clean[0]), np.empty_like(predictions.robust[0])
    try:
        for rest, fold in predictions.folds(params.folds):
            others = predictions.select(rest)
            combination = tuned_method(name, others, params)(others)
            clean[fold], robust[fold] = (
                combination.combine(part[:, fold]) for part in (predictions.clean, predictions.robust)
            )
    except UserError as error:
        return {"val_missing": error.found}
    losses = log_losses(predictions, clean, robust)
    matrix = metrics.confusion(predictions.labels, clean.argmax(1), len(predictions.classes))
    return {
        "val_log_loss": losses[0],
        "val_robust_log_loss": losses[1],
        "val_balanced_accuracy": float(metrics.balanced_accuracy(matrix)),
        "val_robust_accuracy": float((robust.argmax(1) == predictions.labels).mean()),
    }


def _on_test(
    combination: Combination, test: Subset, member_logprobs: np.ndarray, report: ReportParams
) -> dict[str, Any]:
    logprobs = combination.combine(member_logprobs)
    estimates = metrics.estimates(
        test.labels, logprobs.argmax(1), test.patients, test.classes,
        resamples=report.bootstrap, confidence=report.confidence,
    )  # fmt: skip
    fit = calibration(
        test.labels, logprobs, test.patients, resamples=report.bootstrap, confidence=report.confidence
    )
    return {
        "test_accuracy": estimates["accuracy"].value,
        "test_accuracy_ci": estimates["accuracy"].interval,
        "test_balanced_accuracy": estimates["balanced_accuracy"].value,
        "test_balanced_accuracy_ci": estimates["balanced_accuracy"].interval,
        "test_log_loss": metrics.nll(test.labels, logprobs),
        **{f"test_{name}": value for name, value in fit.items() if name.startswith("ece")},
    }

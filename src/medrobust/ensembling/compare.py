"""All methods side by side, from answers that are there already: no image is attacked or read again."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from medrobust.core import metrics
from medrobust.core.errors import UserError
from medrobust.core.params.ensemble import EnsembleParams
from medrobust.core.params.report import ReportParams
from medrobust.data.store import Subset
from medrobust.ensembling.fit import answers, fitter
from medrobust.ensembling.registry import METHODS
from medrobust.ensembling.sample import Sample, log_losses
from medrobust.models.vote import Rule


@dataclass(frozen=True)
class Comparison:
    """What became of each method in `METHODS`.

    Attributes:
        records: method -> `val_log_loss`, `val_robust_log_loss`, `val_balanced_accuracy`, `val_robust_accuracy`
            (each image judged by a rule that was fitted, and whose penalty was chosen, without its patient; or
            `val_missing`: why no such rule can be fitted), `test_...` with patient intervals; or `impossible`: why
            the validation images do not allow the method.
        rules: method -> what it fits to all validation images; without the impossible ones.
    """

    records: dict[str, dict[str, Any]]
    rules: dict[str, Rule]


def compare(
    sample: Sample, test: Subset, votes: np.ndarray, params: EnsembleParams, report: ReportParams
) -> Comparison:
    """Every method on validation (out of fold) and on clean test images.

    Args:
        sample: what M members say of the validation images.
        test: the test images.
        votes: the members' log-probabilities, M×n×K, of the test images.
        params, report: of params.yaml; `params.method` is not looked at.
    """
    found = Comparison({}, {})
    for name in METHODS:
        try:
            rule = found.rules[name] = fitter(name, sample, params)(sample)
        except UserError as error:
            found.records[name] = {"not_fitted": error.found}
        else:
            judged = _out_of_fold(sample, name, params)
            found.records[name] = {**judged, **_on_test(rule, test, votes, report)}
    return found


def _out_of_fold(sample: Sample, name: str, params: EnsembleParams) -> dict[str, Any]:
    """What the method is worth on patients who neither fitted it nor chose its penalty (nested folds)."""
    clean, robust = np.empty_like(sample.clean[0]), np.empty_like(sample.robust[0])
    try:
        for rest, fold in sample.folds(params.folds):
            others = sample.take(rest)
            rule = fitter(name, others, params)(others)
            clean[fold], robust[fold] = (answers(rule, part[:, fold]) for part in (sample.clean, sample.robust))
    except UserError as error:
        return {"val_missing": error.found}
    losses = log_losses(sample, clean, robust)
    matrix = metrics.confusion(sample.labels, clean.argmax(1), len(sample.classes))
    return {
        "val_log_loss": losses[0],
        "val_robust_log_loss": losses[1],
        "val_balanced_accuracy": float(metrics.balanced_accuracy(matrix)),
        "val_robust_accuracy": float((robust.argmax(1) == sample.labels).mean()),
    }


def _on_test(rule: Rule, test: Subset, votes: np.ndarray, report: ReportParams) -> dict[str, Any]:
    logprobs = answers(rule, votes)
    found = metrics.estimates(
        test.labels, logprobs.argmax(1), test.patients, test.classes,
        resamples=report.bootstrap, confidence=report.confidence,
    )  # fmt: skip
    return {
        "test_accuracy": found["accuracy"].value,
        "test_accuracy_ci": found["accuracy"].interval,
        "test_balanced_accuracy": found["balanced_accuracy"].value,
        "test_balanced_accuracy_ci": found["balanced_accuracy"].interval,
        "test_log_loss": metrics.nll(test.labels, logprobs),
        "test_ece": metrics.ece(test.labels, logprobs),
    }

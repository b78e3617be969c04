"""Stacking and blending: multinomial logistic regression on the members' log-probabilities.

The members were trained on training patients, so that all validation patients are new to them. The two methods
differ in how the penalty of the regression is selected: out of fold over all validation patients (stacking,
Wolpert 1992), or on held-out patients that the regression is never fitted to (blending, Töscher, Jahrer & Bell
2009).
"""

from functools import partial

import numpy as np

from medrobust.core.errors import UserError
from medrobust.core.params.ensemble import EnsembleParams
from medrobust.ensembling.member_predictions import MemberPredictions, log_losses
from medrobust.models.combination import Combination


def stacking(predictions: MemberPredictions, params: EnsembleParams) -> "partial[Combination]":
    """Fit to all patients, with the penalty of the smallest log-loss out of fold.

    Raises:
        UserError: a class is absent.
    """
    penalty = _best_penalty(_divided(predictions, params.folds), params)
    return partial(_fit, share=params.robust_share, c=penalty)


def blending(predictions: MemberPredictions, params: EnsembleParams) -> "partial[Combination]":
    """Select the penalty on a share of the patients (`holdout`), and fit to the others.

    Raises:
        UserError: a class is absent from the patients to fit.
    """
    split = _divided(predictions, max(2, round(1 / params.holdout)))[0]
    penalty = _best_penalty([split], params)
    return partial(_fit, share=params.robust_share, c=penalty, held_out=frozenset(split[1].patients))


def _divided(predictions: MemberPredictions, folds: int) -> list[tuple[MemberPredictions, MemberPredictions]]:
    """(images to fit, images to evaluate) per fold, without folds whose images to fit lack a class.

    If every fold lacks a class, all folds are returned.
    """
    splits = [(predictions.select(rest), predictions.select(fold)) for rest, fold in predictions.folds(folds)]
    return [split for split in splits if not split[0].absent()] or splits


def _best_penalty(splits: list[tuple[MemberPredictions, MemberPredictions]], params: EnsembleParams) -> float:
    """The penalty with the smallest log-loss per image to evaluate; ties go to the strongest penalty."""
    shares = (1 - params.robust_share, params.robust_share)

    def loss(c: float) -> float:
        total = 0.0
        for fitted, evaluated in splits:
            combination = _fit(fitted, params.robust_share, c)
            logprobs = (combination.combine(part) for part in (evaluated.clean, evaluated.robust))
            total += len(evaluated.labels) * float(np.dot(shares, log_losses(evaluated, *logprobs)))
        return total

    return min(sorted(params.c_grid), key=loss)


def _fit(
    predictions: MemberPredictions, share: float, c: float, held_out: frozenset[str] = frozenset()
) -> Combination:
    """The regression on clean and attacked images, without `held_out` patients; a UserError if a class is absent.

    A clean image has the weight 2·(1 - share) and an attacked one 2·share, so that the total weight is 2n for n
    validation images. `c` is scikit-learn's inverse strength of the L2 penalty.
    """
    from sklearn.linear_model import LogisticRegression

    if held_out:
        predictions = predictions.select(np.array([patient not in held_out for patient in predictions.patients]))
    if absent := predictions.absent():
        found = f"stacking and blending fit every class, and too few validation patients have {absent[0]}"
        remedy = "Set ensemble.method to equal or convex, or increase split.val"
        raise UserError("params.yaml: ensemble.method", found, remedy)
    count = len(predictions.labels)
    features = np.concatenate([feature_columns(predictions.clean), feature_columns(predictions.robust)])
    weights = np.repeat([2 * (1 - share), 2 * share], count)
    labels = np.tile(predictions.labels, 2)
    used = weights > 0
    model = LogisticRegression(C=c, max_iter=5000, tol=1e-6)
    model.fit(features[used], labels[used], sample_weight=weights[used])
    # For two classes scikit-learn has one row of coefficients: those of the log-odds.
    halves = (np.concatenate([-part, part]) / 2 for part in (model.coef_, model.intercept_))
    coefficients, intercept = halves if len(predictions.classes) == 2 else (model.coef_, model.intercept_)
    return Combination(coefficients=coefficients.tolist(), intercept=intercept.tolist())


def feature_columns(logprobs: np.ndarray) -> np.ndarray:
    """The features of the regression, n×(M·K), from the members' M×n×K: one member after the other."""
    return logprobs.transpose(1, 0, 2).reshape(logprobs.shape[1], -1)

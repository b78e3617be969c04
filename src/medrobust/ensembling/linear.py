"""Stacking and blending: multinomial logistic regression on the members' log-probabilities.

The members were trained on training patients, so all validation patients are new to them. What differs is where
the regression's penalty is chosen: out of fold over all validation patients (stacking, Wolpert 1992), or on some
patients that are held out and never fitted (blending, Töscher, Jahrer & Bell 2009).
"""

from functools import partial

import numpy as np
import torch

from medrobust.core.errors import UserError
from medrobust.core.params.ensemble import EnsembleParams
from medrobust.ensembling.sample import Sample, log_losses
from medrobust.models.vote import Rule


def stacking(sample: Sample, params: EnsembleParams) -> "partial[Rule]":
    """All patients fit; the penalty has the smallest log-loss out of fold, no patient in two folds.

    Raises:
        UserError: a class is absent.
    """
    return partial(_fit, share=params.robust_share, c=_best(_parts(sample, params.folds), params))


def blending(sample: Sample, params: EnsembleParams) -> "partial[Rule]":
    """A share of the patients (`holdout`) chooses the penalty, the others fit.

    Raises:
        UserError: a class is absent from those who fit.
    """
    part = _parts(sample, max(2, round(1 / params.holdout)))[0]
    chosen = _best([part], params)
    return partial(_fit, share=params.robust_share, c=chosen, held=frozenset(part[1].patients))


def _parts(sample: Sample, folds: int) -> list[tuple[Sample, Sample]]:
    """(who fits, who judges) of each fold; those that leave no patient of a class to fit are passed over."""
    dealt = [(sample.take(rest), sample.take(fold)) for rest, fold in sample.folds(folds)]
    return [part for part in dealt if not part[0].absent()] or dealt


def _best(parts: list[tuple[Sample, Sample]], params: EnsembleParams) -> float:
    """The penalty of the smallest log-loss on images that were not fitted; of equals the strongest."""
    shares = (1 - params.robust_share, params.robust_share)

    def loss(c: float) -> float:
        total = 0.0
        for fitted, judged in parts:
            vote = _fit(fitted, params.robust_share, c).module().double()
            said = (vote(torch.from_numpy(part)).numpy() for part in (judged.clean, judged.robust))
            total += len(judged.labels) * float(np.dot(shares, log_losses(judged, *said)))
        return total

    return min(sorted(params.c_grid), key=loss)


def _fit(sample: Sample, share: float, c: float, held: frozenset[str] = frozenset()) -> Rule:
    """The regression on clean and attacked images, weighted 2·(1 - share) and 2·share, so that they count n each.

    Args:
        sample: answers to fit.
        share: of the attacked images.
        c: scikit-learn's inverse strength of the L2 penalty.
        held: patients who are not fitted.

    Raises:
        UserError: a class is absent.
    """
    from sklearn.linear_model import LogisticRegression

    if held:
        sample = sample.take(np.array([patient not in held for patient in sample.patients]))
    if absent := sample.absent():
        found = f"stacking and blending fit every class, and too few validation patients have {absent[0]}"
        raise UserError("params.yaml: ensemble.method", found, "Take equal or convex, or a larger split.val")
    count = len(sample.labels)
    features = np.concatenate([columns(sample.clean), columns(sample.robust)])
    weights = np.repeat([2 * (1 - share), 2 * share], count)
    labels = np.tile(sample.labels, 2)
    counted = weights > 0
    model = LogisticRegression(C=c, max_iter=5000, tol=1e-6)
    model.fit(features[counted], labels[counted], sample_weight=weights[counted])
    # Of two classes scikit-learn keeps the log-odds only.
    halves = (np.concatenate([-part, part]) / 2 for part in (model.coef_, model.intercept_))
    coefficients, intercept = halves if len(sample.classes) == 2 else (model.coef_, model.intercept_)
    return Rule(coefficients=coefficients.tolist(), intercept=intercept.tolist())


def columns(logprobs: np.ndarray) -> np.ndarray:
    """The regression's features, n×(M·K), of the members' M×n×K: one member after the other."""
    found: np.ndarray = logprobs.transpose(1, 0, 2).reshape(logprobs.shape[1], -1)
    return found

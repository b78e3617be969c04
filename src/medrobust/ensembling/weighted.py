"""Weighted means of the members' probabilities: equal weights, or weights fitted on the simplex."""

from functools import partial

import numpy as np

from medrobust.core.params.ensemble import EnsembleParams
from medrobust.ensembling.member_predictions import MemberPredictions
from medrobust.models.combination import Combination

#: Smaller probabilities count as this value, so that one image cannot make the log-loss infinite.
TINY = 1e-12


def equal(predictions: MemberPredictions, params: EnsembleParams) -> "partial[Combination]":
    """The same weight for every member; nothing is fitted."""
    return partial(_equal)


def _equal(predictions: MemberPredictions) -> Combination:
    return Combination(weights=[1 / len(predictions.clean)] * len(predictions.clean))


def convex(predictions: MemberPredictions, params: EnsembleParams) -> "partial[Combination]":
    """The weights with the smallest log-loss; weights below `min_weight` become 0."""
    return partial(_convex, params=params)


def _convex(predictions: MemberPredictions, params: EnsembleParams) -> Combination:
    share = params.robust_share if params.objective == "weighted" else None
    weights = convex_weights(predictions.clean, predictions.robust, predictions.labels, share)
    # The largest weight is kept whatever min_weight is.
    weights[(weights < params.min_weight) & (weights < weights.max())] = 0
    return Combination(weights=(weights / weights.sum()).tolist())


def convex_weights(
    clean: np.ndarray, robust: np.ndarray, labels: np.ndarray, robust_share: float | None
) -> np.ndarray:
    """Weights on the simplex, M, that minimise the log-loss of the weighted mean probability.

    The log-loss is (1 - share)·clean + share·robust, or without a share the larger of the two. Both losses are
    convex in the weights, so that every local minimum is a global one. `clean` and `robust` are log-probabilities,
    M×n×K.
    """
    from scipy.optimize import minimize

    members, rows = len(clean), np.arange(len(labels))
    true_probs = [np.exp(part[:, rows, labels]) for part in (clean, robust)]
    mix = np.eye(2) if robust_share is None else np.array([[1 - robust_share, robust_share]])

    def losses(weights: np.ndarray) -> np.ndarray:
        return mix @ [-np.log(np.maximum(weights @ probs, TINY)).mean() for probs in true_probs]

    def gradients(weights: np.ndarray) -> np.ndarray:
        return mix @ [-(probs / np.maximum(weights @ probs, TINY)).mean(1) for probs in true_probs]

    # Epigraph form: the last variable is an upper bound of all losses, and the smallest such bound is wanted.
    bound = np.eye(members + 1)[-1]
    start = np.full(members, 1 / members)
    constraints = [
        {"type": "eq", "fun": lambda x: x[:-1].sum() - 1, "jac": lambda _: 1 - bound},
        {
            "type": "ineq",
            "fun": lambda x: x[-1] - losses(x[:-1]),
            "jac": lambda x: np.column_stack([-gradients(x[:-1]), np.ones(len(mix))]),
        },
    ]
    solution = minimize(
        lambda x: x[-1], np.append(start, losses(start).max()), jac=lambda _: bound, method="SLSQP",
        bounds=[(0, 1)] * members + [(None, None)], constraints=constraints,
        options={"ftol": 1e-10, "maxiter": 1000},
    ).x[:-1]  # fmt: skip
    return np.clip(solution, 0, None) / np.clip(solution, 0, None).sum()

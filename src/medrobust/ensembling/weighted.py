"""Soft votes: the mean of the members' probabilities, plain or with weights fitted on the simplex."""

from functools import partial

import numpy as np

from medrobust.core.params.ensemble import EnsembleParams
from medrobust.ensembling.sample import Sample
from medrobust.models.vote import Rule

#: Below it a probability counts as this much, so that one image cannot make the log-loss infinite.
TINY = 1e-12


def equal(sample: Sample, params: EnsembleParams) -> "partial[Rule]":
    """Every member the same weight; nothing is fitted."""
    return partial(_equal)


def _equal(sample: Sample) -> Rule:
    return Rule(weights=[1 / len(sample.clean)] * len(sample.clean))


def convex(sample: Sample, params: EnsembleParams) -> "partial[Rule]":
    """Weights on the simplex of the smallest log-loss; those below `min_weight` become 0 (and cost nothing)."""
    return partial(_convex, params=params)


def _convex(sample: Sample, params: EnsembleParams) -> Rule:
    share = params.robust_share if params.objective == "weighted" else None
    weights = convex_weights(sample.clean, sample.robust, sample.labels, share)
    # The largest stays whatever min_weight says.
    weights[(weights < params.min_weight) & (weights < weights.max())] = 0
    return Rule(weights=(weights / weights.sum()).tolist())


def convex_weights(
    clean: np.ndarray, robust: np.ndarray, labels: np.ndarray, robust_share: float | None
) -> np.ndarray:
    """Weights on the simplex, M, of the smallest log-loss of the weighted mean probability.

    Both losses are convex in the weights, so that the found minimum is the only value there is.

    Args:
        clean, robust: log-probabilities, M×n×K, of each member.
        labels: int, n.
        robust_share: minimise (1 - share)·clean + share·robust; None: minimise the larger of the two.
    """
    from scipy.optimize import minimize

    members, rows = len(clean), np.arange(len(labels))
    chances = [np.exp(part[:, rows, labels]) for part in (clean, robust)]
    mix = np.eye(2) if robust_share is None else np.array([[1 - robust_share, robust_share]])

    def losses(weights: np.ndarray) -> np.ndarray:
        values: np.ndarray = mix @ [-np.log(np.maximum(weights @ chance, TINY)).mean() for chance in chances]
        return values

    def slopes(weights: np.ndarray) -> np.ndarray:
        values: np.ndarray = mix @ [-(chance / np.maximum(weights @ chance, TINY)).mean(1) for chance in chances]
        return values

    # Epigraph form: the bound t of all losses is the last variable, and the smallest t is wanted.
    bound = np.eye(members + 1)[-1]
    start = np.full(members, 1 / members)
    constraints = [
        {"type": "eq", "fun": lambda x: x[:-1].sum() - 1, "jac": lambda _: 1 - bound},
        {
            "type": "ineq",
            "fun": lambda x: x[-1] - losses(x[:-1]),
            "jac": lambda x: np.column_stack([-slopes(x[:-1]), np.ones(len(mix))]),
        },
    ]
    found = minimize(
        lambda x: x[-1], np.append(start, losses(start).max()), jac=lambda _: bound, method="SLSQP",
        bounds=[(0, 1)] * members + [(None, None)], constraints=constraints,
        options={"ftol": 1e-10, "maxiter": 1000},
    ).x[:-1]  # fmt: skip
    weights: np.ndarray = np.clip(found, 0, None) / np.clip(found, 0, None).sum()
    return weights

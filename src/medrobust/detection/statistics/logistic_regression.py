"""Logistic regression of attacked against clean images: fitted by scikit-learn, evaluated in torch."""

import torch
from torch import Tensor

from medrobust.detection.statistics.standardise import moments, standardise


def fit_logistic(clean: Tensor, attacked: Tensor, where: str, *, strength: float) -> dict[str, Tensor]:
    """Fit clean (0, n×D) against attacked (1, m×D) with equal class weights; returns the state of `log_odds`.

    `strength` is the inverse of the L2 penalty (scikit-learn's C) on standardised columns.
    """
    from sklearn.linear_model import LogisticRegression

    both = torch.cat([clean, attacked])
    scale = moments(both, where)
    targets = torch.cat([torch.zeros(len(clean)), torch.ones(len(attacked))]).numpy()
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    model.fit(standardise(both, scale).detach().cpu().numpy(), targets)
    return {
        **{f"logit_{name}": value for name, value in scale.items()},
        "logit_weights": torch.from_numpy(model.coef_[0]).to(scale["mean"]),
        "logit_bias": scale["mean"].new_tensor(model.intercept_[0]),
    }


def log_odds(values: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Log-odds of being attacked, n, from values n×D and the state of `fit_logistic`."""
    columns = standardise(values, {name: state[f"logit_{name}"] for name in ("keep", "mean", "std")})
    return columns @ state["logit_weights"] + state["logit_bias"]

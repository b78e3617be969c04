"""Temperature scaling: one number that makes a model's probabilities honest and changes no answer."""

import numpy as np
from torch import Tensor, nn


def fit_temperature(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> float:
    """The temperature of the lowest log-loss (Guo et al. 2017, section 4.2), between 0.05 and 20.

    Targets are (n+1)/(n+2) instead of 1 (Platt 1999), without which images that are all classified rightly would
    ask for infinite confidence.

    Args:
        logits: n×K of validation images.
        labels: int64 n.
        weights: n, of the images; None = all the same.
    """
    from scipy.optimize import minimize_scalar

    count, classes = logits.shape
    smoothing = classes / (classes - 1) / (count + 2)

    def loss(log_temperature: float) -> float:
        scaled = logits.double() / float(np.exp(log_temperature))
        losses = nn.functional.cross_entropy(scaled, labels, label_smoothing=smoothing, reduction="none")
        return float(losses.mean() if weights is None else (losses * weights).sum() / weights.sum())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))

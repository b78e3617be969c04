"""Temperature scaling: calibrate a model's probabilities by one number, without changing its predictions."""

import numpy as np
from torch import Tensor, nn


def fit_temperature(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> float:
    """Fit the temperature, between 0.05 and 20, that minimises the log-loss (Guo et al. 2017, section 4.2).

    Target probabilities are (n+1)/(n+2) instead of 1 (Platt 1999). Otherwise the best fit to images that are all
    classified correctly would be infinite confidence. Validation logits are n×K, labels int64 n, weights n (None =
    equal).
    """
    from scipy.optimize import minimize_scalar

    count, classes = logits.shape
    smoothing = classes / (classes - 1) / (count + 2)

    def loss(log_temperature: float) -> float:
        scaled = logits.double() / float(np.exp(log_temperature))
        losses = nn.functional.cross_entropy(scaled, labels, label_smoothing=smoothing, reduction="none")
        return float(losses.mean() if weights is None else (losses * weights).sum() / weights.sum())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))

"""Random labels with log-probabilities that are better than chance."""

import numpy as np


def draw(seed: int, n: int = 120, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Labels, int n, in which each of k classes occurs, and log-probabilities, n×k."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    logits = rng.normal(0, 1, (n, k)) + 1.5 * np.eye(k)[labels]
    return labels, logits - np.log(np.exp(logits).sum(1, keepdims=True))

"""How an ensemble combines its members: the fitted parameters as plain numbers, and modules that apply them.

Every module maps log-probabilities of M members, M×n×K, to log-probabilities of the ensemble, n×K. All are
differentiable, so that attacks follow the gradient of what the ensemble really predicts.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Combination:
    """The parameters that an ensemble method fits. Either `weights` or `coefficients` with `intercept` are set.

    Attributes:
        weights: M, non-negative, sum 1; the ensemble predicts the weighted mean of the members' probabilities.
        coefficients: K×(M·K); of a linear model on the members' log-probabilities, one member after the other.
        intercept: K; of the linear model.
        temperatures: M; each member's logits are first divided by its temperature (Guo et al. 2017). None = not.
    """

    weights: list[float] | None = None
    coefficients: list[list[float]] | None = None
    intercept: list[float] | None = None
    temperatures: list[float] | None = None

    def active(self, members: int) -> list[int]:
        """Positions of the active members: those with a weight above 0; all members of a linear model."""
        return [i for i in range(members) if self.weights is None or self.weights[i] > 0]

    def of_active(self) -> "Combination":
        if self.weights is None:
            return self
        active = self.active(len(self.weights))
        temperatures = None if self.temperatures is None else [self.temperatures[i] for i in active]
        return Combination(weights=[self.weights[i] for i in active], temperatures=temperatures)

    def combine(self, logprobs: np.ndarray) -> np.ndarray:
        """The ensemble's log-probabilities, float64 n×K, from the members' M×n×K."""
        return self.module().double()(torch.from_numpy(logprobs)).numpy()

    def module(self) -> nn.Module:
        if self.weights is not None:
            return WeightedCombiner(self.weights, self.temperatures)
        assert self.coefficients is not None, "a combination has weights or coefficients"
        assert self.intercept is not None, "coefficients come with an intercept"
        return LinearCombiner(self.coefficients, self.intercept, self.temperatures)


class Combiner(nn.Module):
    """Base: applies the temperatures (M, positive; None = not) before a subclass combines the members."""

    temperatures: Tensor | None

    def __init__(self, temperatures: list[float] | None) -> None:
        super().__init__()
        self.register_buffer("temperatures", None if temperatures is None else torch.tensor(temperatures))

    def scaled(self, logprobs: Tensor) -> Tensor:
        """The members' log-probabilities, M×n×K, each at its temperature."""
        if self.temperatures is None:
            return logprobs
        return (logprobs / self.temperatures.to(logprobs.dtype)[:, None, None]).log_softmax(-1)


class WeightedCombiner(Combiner):
    """Weighted mean of probabilities: log(sum of weight · probability). M weights, non-negative, sum 1."""

    weights: Tensor

    def __init__(self, weights: list[float], temperatures: list[float] | None = None) -> None:
        super().__init__(temperatures)
        self.register_buffer("weights", torch.tensor(weights))

    def forward(self, logprobs: Tensor) -> Tensor:
        weights = self.weights.log().to(logprobs.dtype)
        return torch.logsumexp(self.scaled(logprobs) + weights[:, None, None], dim=0)


class LinearCombiner(Combiner):
    """Multinomial logistic regression on log-probabilities (stacking, Wolpert 1992); coefficients K×(M·K)."""

    coefficients: Tensor
    intercept: Tensor

    def __init__(
        self, coefficients: list[list[float]], intercept: list[float], temperatures: list[float] | None = None
    ) -> None:
        super().__init__(temperatures)
        self.register_buffer("coefficients", torch.tensor(coefficients))
        self.register_buffer("intercept", torch.tensor(intercept))

    def forward(self, logprobs: Tensor) -> Tensor:
        features = self.scaled(logprobs).transpose(0, 1).flatten(1)
        logits = features @ self.coefficients.to(logprobs.dtype).T + self.intercept.to(logprobs.dtype)
        return logits.log_softmax(1)

"""How members' answers become one: a rule as plain numbers, and the module that applies it.

Every module takes log-probabilities of M members, M×n×K, and gives log-probabilities, n×K, differentiably: attacks
see what the vote really says.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Rule:
    """What a method fits.

    Attributes:
        weights: M, non-negative, sum 1: the vote is the weighted mean of probabilities. None: a linear rule.
        coefficients: K×(M·K), of the members' log-probabilities, one member after the other. None: weights.
        intercept: K, beside the coefficients.
        temperatures: M; each member's logits are divided by its own first (Guo et al. 2017). None = none.
    """

    weights: list[float] | None = None
    coefficients: list[list[float]] | None = None
    intercept: list[float] | None = None
    temperatures: list[float] | None = None

    def voters(self, members: int) -> list[int]:
        """Positions of the members that have a say: whose weight is above 0, with a linear rule all."""
        return [place for place in range(members) if self.weights is None or self.weights[place] > 0]

    def of_voters(self) -> "Rule":
        """The same rule for the members that have a say."""
        if self.weights is None:
            return self
        kept = self.voters(len(self.weights))
        cooled = None if self.temperatures is None else [self.temperatures[place] for place in kept]
        return Rule(weights=[self.weights[place] for place in kept], temperatures=cooled)

    def module(self) -> nn.Module:
        """The module of all M members."""
        if self.weights is not None:
            return WeightedVote(self.weights, self.temperatures)
        assert self.coefficients is not None, "a rule has weights or coefficients"
        assert self.intercept is not None, "coefficients come with an intercept"
        return LinearVote(self.coefficients, self.intercept, self.temperatures)


class Vote(nn.Module):
    """What all rules share: members are tempered before they are combined.

    Args:
        temperatures: M, positive; None leaves the members as they are.
    """

    temperatures: Tensor | None

    def __init__(self, temperatures: list[float] | None) -> None:
        super().__init__()
        self.register_buffer("temperatures", None if temperatures is None else torch.tensor(temperatures))

    def tempered(self, votes: Tensor) -> Tensor:
        """Log-probabilities, M×n×K, at each member's temperature."""
        if self.temperatures is None:
            return votes
        return (votes / self.temperatures.to(votes.dtype)[:, None, None]).log_softmax(-1)


class WeightedVote(Vote):
    """log(sum of weight · probability), a soft vote.

    Args:
        weights: M, non-negative, sum 1.
        temperatures: as of `Vote`.
    """

    weights: Tensor

    def __init__(self, weights: list[float], temperatures: list[float] | None = None) -> None:
        super().__init__(temperatures)
        self.register_buffer("weights", torch.tensor(weights))

    def forward(self, votes: Tensor) -> Tensor:
        """Log-probabilities, n×K, of the members' M×n×K."""
        weights = self.weights.log().to(votes.dtype)
        return torch.logsumexp(self.tempered(votes) + weights[:, None, None], dim=0)


class LinearVote(Vote):
    """Multinomial logistic regression on the members' log-probabilities (stacking, Wolpert 1992).

    Args:
        coefficients: K×(M·K).
        intercept: K.
        temperatures: as of `Vote`.
    """

    coefficients: Tensor
    intercept: Tensor

    def __init__(
        self, coefficients: list[list[float]], intercept: list[float], temperatures: list[float] | None = None
    ) -> None:
        super().__init__(temperatures)
        self.register_buffer("coefficients", torch.tensor(coefficients))
        self.register_buffer("intercept", torch.tensor(intercept))

    def forward(self, votes: Tensor) -> Tensor:
        """Log-probabilities, n×K, of the members' M×n×K."""
        features = self.tempered(votes).transpose(0, 1).flatten(1)
        logits = features @ self.coefficients.to(votes.dtype).T + self.intercept.to(votes.dtype)
        return logits.log_softmax(1)

"""Aggregates: how the outputs of a network for a patient's images become the logits of the patient."""

import torch
from torch import Tensor, nn


class MeanLogProbability(nn.Module):
    """The mean over images of the log-probabilities of each class: their geometric mean, up to a factor."""

    needs_features = False

    def forward(self, logprobs: Tensor) -> Tensor:
        """Log-probabilities n×S×K to logits n×K."""
        return logprobs.mean(1)


class MaxLogProbability(nn.Module):
    """The largest log-probability of each class over the images, as in multiple-instance learning."""

    needs_features = False

    def forward(self, logprobs: Tensor) -> Tensor:
        """Log-probabilities n×S×K to logits n×K."""
        return logprobs.amax(1)


class _OfFeatures(nn.Module):
    """Standardises features n×S×D with the statistics of the training images."""

    needs_features = True
    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def standardise(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.std

    def set_statistics(self, features: Tensor) -> None:
        """Use the mean and the standard deviation of features N×D; constant features are divided by 1."""
        std = features.std(0)
        self.mean, self.std = features.mean(0), torch.where(std > 0, std, torch.ones_like(std))


class GatedAttention(_OfFeatures):
    """Gated attention pooling of the features of the images (Ilse et al. 2018, equations 7 and 9)."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__(width)
        self.content, self.gate = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.weight, self.head = nn.Linear(hidden, 1), nn.Linear(width, classes)

    def attention(self, features: Tensor) -> Tensor:
        """The weight of each image, n×S×1; the weights of a patient add up to 1."""
        scores: Tensor = self.weight(self.content(features).tanh() * self.gate(features).sigmoid())
        return scores.softmax(1)

    def forward(self, features: Tensor) -> Tensor:
        """Features n×S×D to logits n×K."""
        features = self.standardise(features)
        logits: Tensor = self.head((self.attention(features) * features).sum(1))
        return logits


class Recurrent(_OfFeatures):
    """A gated recurrent unit over the images in the order of their slices (Cho et al. 2014)."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__(width)
        self.gru, self.head = nn.GRU(width, hidden, batch_first=True), nn.Linear(hidden, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Features n×S×D to logits n×K."""
        # In eval mode cuDNN gives recurrent layers no gradient, which attacks need.
        with torch.backends.cudnn.flags(enabled=False):
            last = self.gru(self.standardise(features))[1][-1]
        logits: Tensor = self.head(last)
        return logits


def build_aggregate(kind: str, width: int, hidden: int, classes: int) -> nn.Module:
    """A new aggregate for features of a width; its weights are drawn from torch's global random state."""
    if kind == "mean":
        return MeanLogProbability()
    if kind == "max":
        return MaxLogProbability()
    return (GatedAttention if kind == "attention" else Recurrent)(width, hidden, classes)

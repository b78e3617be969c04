"""Local intrinsic dimensionality over several layers (Ma et al. 2018, arXiv 1801.02613)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from medrobust.core.errors import UserError
from medrobust.core.params.base import Count, Natural
from medrobust.detection.base import Detector
from medrobust.detection.features import Features
from medrobust.detection.statistics.distances import nearest
from medrobust.detection.statistics.logistic_regression import fit_logistic, log_odds
from medrobust.detection.statistics.standardise import moments


@dataclass(kw_only=True)
class IntrinsicDimensionality(Detector):
    """A logistic regression on the LID of every layer. Supervised: it learns from attacked training images.

    Exact LID (`reference` 0) compares each image with all N training images: time per image and layer grows with
    N·D. The minibatch form is cheap because it draws `reference` of them, once.
    """

    supervised = True
    neighbours: Count = 20
    reference: Natural = 100

    def learn(self, features: Features, labels: Tensor, attacked: Features | None, seed: int) -> dict[str, Tensor]:
        assert attacked is not None
        count = min(self.reference or len(features), len(features))
        if count <= self.neighbours:
            found = f"{count} reference images for {self.neighbours} neighbours"
            raise UserError("lid", found, "Set fewer neighbours, or more reference images")
        rows = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))[:count]
        rows = rows.sort().values.to(features.logits.device)
        for number, layer in enumerate(features.layers):
            moments(layer[rows], f"lid: layer {number}")  # a constant layer has no neighbourhoods
        state = {f"reference_{number}": layer[rows].double() for number, layer in enumerate(features.layers)}
        clean, bad = (self._dimensions(part, state) for part in (features, attacked))
        return {**state, **fit_logistic(clean, bad, "lid", strength=1.0)}

    def suspicion(self, features: Features) -> Tensor:
        return log_odds(self._dimensions(features, self.state), self.state)

    def _dimensions(self, features: Features, state: dict[str, Tensor]) -> Tensor:
        """LID of each image in each layer, n×L."""
        columns = [
            local_dimensionality(layer.double(), state[f"reference_{number}"], self.neighbours)
            for number, layer in enumerate(features.layers)
        ]
        return torch.stack(columns, 1)


def local_dimensionality(points: Tensor, references: Tensor, k: int) -> Tensor:
    """Maximum-likelihood LID, n (Amsaleg et al. 2015, as used by Ma et al. 2018): -1 / mean_i log(r_i / r_k).

    Points are float64 n×D, references float64 m×D with m > k; copies of a point are not its neighbours.
    """
    squared = nearest(points, references, k)
    slopes = (squared / squared[:, -1:]).log().mean(1) / 2
    return -1 / slopes.clamp_max(-1e-12)

"""Mahalanobis distance to the nearest class over several layers (Lee et al. 2018, arXiv 1807.03888)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from medrobust.detection.base import Detector
from medrobust.detection.features import Features
from medrobust.detection.statistics.standardise import check_class_sizes, moments, standardise


@dataclass(kw_only=True)
class Mahalanobis(Detector):
    """Mean over layers of the distance to the nearest class mean, in standard deviations of held-out clean images.

    Unlike in Lee et al., no attacked images are used, so every layer has the same weight, and no noise is added to
    the input. The covariance is shared by the classes and shrunk (Ledoit & Wolf 2004).
    """

    def learn(self, features: Features, labels: Tensor, attacked: Features | None, seed: int) -> dict[str, Tensor]:
        from sklearn.covariance import LedoitWolf

        classes = features.logits.shape[1]
        check_class_sizes(labels, classes, 2, "mahalanobis")
        state: dict[str, Tensor] = {}
        for number, layer in enumerate(features.layers):
            scale = moments(layer, f"mahalanobis: layer {number}")
            points = standardise(layer, scale)
            centres = torch.stack([points[labels == k].mean(0) for k in range(classes)])
            shrunk = LedoitWolf(assume_centered=True).fit((points - centres[labels]).cpu().numpy())
            precision = torch.from_numpy(shrunk.precision_).to(points)
            parts = {**scale, "centres": centres, "precision": precision}
            state |= {f"{name}_{number}": value for name, value in parts.items()}
        return state

    def adjust(self, held_out: Features) -> dict[str, Tensor]:
        """Mean and standard deviation of each layer's distance.

        Those of training images would be too small, the more so the wider a layer is, so that layers would not
        count alike.
        """
        state = {}
        for number, layer in enumerate(held_out.layers):
            distances = _distance(layer, self.state, number)
            state[f"typical_{number}"] = torch.stack([distances.mean(), distances.std().clamp_min(1e-12)])
        return state

    def suspicion(self, features: Features) -> Tensor:
        columns = []
        for number, layer in enumerate(features.layers):
            middle, spread = self.state[f"typical_{number}"]
            columns.append((_distance(layer, self.state, number) - middle) / spread)
        return torch.stack(columns).mean(0)


def _distance(layer: Tensor, state: dict[str, Tensor], number: int) -> Tensor:
    """Squared Mahalanobis distance to the nearest class mean, n."""
    points = standardise(layer, {name: state[f"{name}_{number}"] for name in ("keep", "mean", "std")})
    distances = []
    for centre in state[f"centres_{number}"]:
        offsets = points - centre
        distances.append((offsets @ state[f"precision_{number}"] * offsets).sum(1))
    return torch.stack(distances).amin(0)

"""Class-wise Gaussian mixtures on penultimate features, the "UAD" of Li, Pan & Zhu 2020 (arXiv 2006.13555)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medrobust.core.params.base import Count, NotNegative
from medrobust.detection.base import Detector
from medrobust.detection.features import Features
from medrobust.detection.statistics.standardise import check_class_sizes, moments, standardise


@dataclass(kw_only=True)
class ClasswiseMixture(Detector):
    """Negative log-density of the features under the mixture of the predicted class.

    A mixture of `components` Gaussians is fitted to each class by EM on standardised features. `loading` is added
    to the diagonal of every covariance, in units of a feature's variance over the training images; without it,
    fewer images than features would give an infinite density. The covariance `diag` treats features as
    independent.
    """

    components: Count = 1
    loading: NotNegative = 0.1
    covariance: Literal["full", "diag"] = "full"

    def learn(self, features: Features, labels: Tensor, attacked: Features | None, seed: int) -> dict[str, Tensor]:
        from sklearn.mixture import GaussianMixture

        classes = features.logits.shape[1]
        check_class_sizes(labels, classes, max(self.components, 2), "gmm")
        scale = moments(features.penultimate, "gmm")
        points = standardise(features.penultimate, scale)
        options = {"covariance_type": self.covariance, "reg_covar": self.loading, "random_state": seed}
        mixtures = [
            GaussianMixture(self.components, **options).fit(points[labels == k].cpu().numpy())
            for k in range(classes)
        ]
        state = dict(scale)
        names = {"centres": "means_", "weights": "weights_", "factors": "precisions_cholesky_"}
        for name, attribute in names.items():
            parts = [torch.from_numpy(getattr(mixture, attribute)) for mixture in mixtures]
            state[name] = torch.stack(parts).to(points.device)
        return state

    def suspicion(self, features: Features) -> Tensor:
        points = standardise(features.penultimate, self.state)
        preds = features.preds
        result = points.new_zeros(len(points))
        for k in preds.unique().tolist():
            rows = torch.nonzero(preds == k).flatten()
            result = result.index_add(0, rows, -self._log_density(points[rows], k))
        return result

    def _log_density(self, points: Tensor, k: int) -> Tensor:
        """Log-density of n×d points under the mixture of class k, n."""
        parts = []
        for weight, centre, factor in zip(
            self.state["weights"][k], self.state["centres"][k], self.state["factors"][k], strict=True
        ):
            offsets = points - centre
            whitened = offsets @ factor if factor.ndim == 2 else offsets * factor
            diagonal = factor.diagonal() if factor.ndim == 2 else factor
            constant = weight.log() + diagonal.log().sum() - points.shape[1] / 2 * math.log(2 * math.pi)
            parts.append(constant - whitened.pow(2).sum(1) / 2)
        return torch.logsumexp(torch.stack(parts), 0)

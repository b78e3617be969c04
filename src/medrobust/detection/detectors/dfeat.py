"""A classifier on deep features, the "DFeat" baseline of Ma et al. 2020 (arXiv 1907.10456)."""

from dataclasses import dataclass

from torch import Tensor

from medrobust.core.params.base import Positive
from medrobust.detection.base import Detector
from medrobust.detection.features import Features
from medrobust.detection.statistics.logistic_regression import fit_logistic, log_odds


@dataclass(kw_only=True)
class DeepFeatureClassifier(Detector):
    """Logistic regression of attacked against clean penultimate features. Supervised: it knows one attack.

    `strength` is the inverse of the L2 penalty on standardised features (scikit-learn's C).
    """

    supervised = True
    strength: Positive = 0.01

    def learn(self, features: Features, labels: Tensor, attacked: Features | None, seed: int) -> dict[str, Tensor]:
        assert attacked is not None
        return fit_logistic(features.penultimate, attacked.penultimate, "dfeat", strength=self.strength)

    def suspicion(self, features: Features) -> Tensor:
        return log_odds(features.penultimate, self.state)

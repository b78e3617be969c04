"""The contract of a detector: fit on features of clean images, then score images; higher = more suspicious."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from medrobust.core.errors import UserError
from medrobust.core.params.hyperparameters import build, check_values
from medrobust.detection.features import DeepFeatures, Extractor, Features
from medrobust.detection.registry import DETECTORS


@dataclass(kw_only=True)
class Detector(ABC):
    """Hyper-parameters of a detector as fields, and the tensors that fitting found in `state`.

    A subclass implements `learn` and `suspicion`. Scores are computed in torch and are differentiable with respect
    to the features, so that an adaptive attacker can follow their gradient. The score of an image does not depend
    on the other images of the batch. A `supervised` detector needs attacked images for fitting. It knows one
    attack and must be tested on another.
    """

    supervised: ClassVar[bool] = False
    state: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse values that the annotations do not allow; a subclass with more checks calls this first."""
        check_values(self, "detector")

    @property
    def extractor(self) -> Extractor:
        return DeepFeatures()

    @abstractmethod
    def learn(self, features: Features, labels: Tensor, attacked: Features | None, seed: int) -> dict[str, Tensor]:
        """The state, name -> tensor. The arguments are those of `fit`, already checked."""

    def adjust(self, held_out: Features) -> dict[str, Tensor]:
        """Further state, once `learn` is done, from clean images that neither model nor detector learned from."""
        return {}

    @abstractmethod
    def suspicion(self, features: Features) -> Tensor:
        """Scores, float n, of features that are already checked."""

    def fit(
        self, features: Features, labels: Tensor, *, held_out: Features, attacked: Features | None = None,
        seed: int = 0,
    ) -> Self:  # fmt: skip
        """Fit on features of n clean training images, computed by this detector's `extractor`; labels are int64 n.

        Supervised detectors also use `attacked`, the features of m attacked training images. `held_out` are
        features of clean images that the model was not trained on (validation images).

        Raises:
            UserError: NaN or constant features, a class with too few images, or no attacked images for a
                supervised detector.
        """
        check_finite(features)
        check_finite(held_out)
        if self.supervised:
            if attacked is None:
                remedy = "Give attacked training images, or use an unsupervised detector"
                raise UserError(type(self).__name__, "is supervised and got clean images only", remedy)
            check_finite(attacked)
        self.state = self.learn(features, labels, attacked if self.supervised else None, seed)
        self.state |= {**self.adjust(held_out), "widths": _widths(features)}
        return self

    def score(self, features: Features) -> Tensor:
        """Scores, float n; higher = more suspicious.

        Raises:
            UserError: NaN features, or a detector that was not fitted, or that was fitted to another model.
        """
        if not self.state:
            raise UserError(type(self).__name__, "was not fitted", "Call fit first")
        if self.state["widths"].tolist() != _widths(features).tolist():
            remedy = "Use the model that the detector was fitted to"
            raise UserError(type(self).__name__, "was fitted to features of other widths", remedy)
        check_finite(features)
        return self.suspicion(features)

    def hyperparameters(self) -> dict[str, Any]:
        """The arguments from which `registry.build_detector` builds the same detector."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.init}

    def to(self, device: torch.device | str) -> Self:
        self.state = {name: value.to(device) for name, value in self.state.items()}
        return self


def _widths(features: Features) -> Tensor:
    return torch.tensor([part.shape[-1] for part in features.parts()])


def check_finite(features: Features) -> None:
    """Raise a UserError that says how many images have a NaN or infinite feature."""
    bad = torch.zeros(len(features), dtype=torch.bool, device=features.logits.device)
    for part in features.parts():
        bad |= ~torch.isfinite(part.detach()).flatten(1).all(1)
    if bad.any():
        found = f"{int(bad.sum())} of {len(features)} images have a NaN or infinite feature"
        raise UserError("features", found, "Check the model's weights and these images")


def build_detector(name: str, settings: Mapping[str, Any], where: str) -> Detector:
    """A detector that is not fitted yet; `where` (file and key) is for messages.

    Only classes of this registry are built, so a file that names a detector (params.yaml, a guard's card.json)
    cannot make other code run.

    Raises:
        UserError: a name that is not in the registry, an unknown hyper-parameter, or a value that its annotation
            does not allow.
    """
    if name not in DETECTORS:
        raise UserError(where, f"no detector {name!r}", f"Known: {', '.join(DETECTORS)}")
    module, _, kind = DETECTORS[name].partition(":")
    return build(getattr(import_module(module), kind), settings, where)

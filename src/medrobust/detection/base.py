"""The contract of a detector: fit on what a model says of clean images, then score; higher = more suspicious."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from medrobust.core.errors import UserError
from medrobust.core.params.hyperparameters import build, check_values
from medrobust.detection.features import DeepFeatures, Extractor, Features


@dataclass(kw_only=True)
class Detector(ABC):
    """Hyper-parameters of a detector, and in `state` what fitting found; the author writes only the maths.

    Scores are computed in torch and can be differentiated by the features, so that an adaptive attacker can
    follow their gradient. The score of an image does not depend on the images scored with it.

    Attributes:
        supervised: whether fitting needs attacked images too; such a detector knows one attack and must be
            tested on another.
        state: name -> tensor; what `fit` found.
    """

    supervised: ClassVar[bool] = False
    state: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what the annotations do not allow; a method with more to refuse calls this first."""
        check_values(self, "detector")

    @property
    def extractor(self) -> Extractor:
        """How the features that this detector takes are had from a model and images."""
        return DeepFeatures()

    @abstractmethod
    def learn(self, features: Features, labels: Tensor, attacked: Features | None, seed: int) -> dict[str, Tensor]:
        """What fitting finds, by name; the arguments are those of `fit`, checked."""

    @abstractmethod
    def suspicion(self, features: Features) -> Tensor:
        """Scores, float n, of checked features."""

    def fit(self, features: Features, labels: Tensor, *, attacked: Features | None = None, seed: int = 0) -> Self:
        """Fit on clean training images.

        Args:
            features: of n clean training images, as this detector's `extractor` gives them.
            labels: int64, n; the true classes.
            attacked: of m attacked training images; only supervised detectors look at them.
            seed: of whatever fitting draws.

        Raises:
            UserError: NaN or constant features, a class with too few images, or no attacked images for a
                supervised detector.
        """
        check_finite(features)
        if self.supervised:
            if attacked is None:
                remedy = "Give attacked training images, or take a detector that needs none"
                raise UserError(type(self).__name__, "is supervised and got clean images only", remedy)
            check_finite(attacked)
        found = self.learn(features, labels, attacked if self.supervised else None, seed)
        self.state = {**found, "widths": _widths(features)}
        return self

    def score(self, features: Features) -> Tensor:
        """Scores, float n, higher = more suspicious.

        Raises:
            UserError: NaN features, or a detector that was not fitted, or fitted to another model.
        """
        if not self.state:
            raise UserError(type(self).__name__, "was not fitted", "Call fit first")
        if self.state["widths"].tolist() != _widths(features).tolist():
            remedy = "Score with the model that it was fitted to"
            raise UserError(type(self).__name__, "was fitted to features of other widths", remedy)
        check_finite(features)
        return self.suspicion(features)

    def hyperparameters(self) -> dict[str, Any]:
        """What `build_detector` builds the same detector from."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.init}

    @property
    def kind(self) -> str:
        """`module:class`, as the registry has it."""
        return f"{type(self).__module__}:{type(self).__qualname__}"

    def to(self, device: torch.device | str) -> Self:
        """Move what fitting found."""
        self.state = {name: value.to(device) for name, value in self.state.items()}
        return self


def build_detector(kind: str, settings: dict[str, Any], where: str) -> Detector:
    """A detector that is not fitted yet.

    Args:
        kind: `module:class`, as the registry has it.
        settings: its hyper-parameters; those left out have the class's defaults.
        where: whose settings they are, for messages.

    Raises:
        UserError: an unknown hyper-parameter, or a value that it does not take.
    """
    module, _, name = kind.partition(":")
    found: type[Detector] = getattr(import_module(module), name)
    return build(found, settings, where)


def _widths(features: Features) -> Tensor:
    return torch.tensor([part.shape[-1] for part in features.parts()])


def check_finite(features: Features) -> None:
    """Refuse features with a NaN or an infinity.

    Raises:
        UserError: names how many images have one.
    """
    bad = torch.zeros(len(features), dtype=torch.bool, device=features.logits.device)
    for part in features.parts():
        bad |= ~torch.isfinite(part.detach()).flatten(1).all(1)
    if bad.any():
        found = f"{int(bad.sum())} of {len(features)} images have a NaN or infinite feature"
        raise UserError("features", found, "Look at the model's weights and at these images")


def moments(features: Tensor, where: str) -> tuple[Tensor, Tensor, Tensor]:
    """Columns that vary, and their mean and standard deviation, in float64.

    Constant features carry no density (every deviation from them would be infinitely unlikely) and are left
    out, as dead units of a ReLU network are.

    Args:
        features: n×D.
        where: whose they are, for the message.

    Returns:
        Indices of the varying columns, d, their means, d, and standard deviations, d.

    Raises:
        UserError: no column varies.
    """
    values = features.double()
    deviation = values.std(0, unbiased=False)
    scale = values.abs().amax(0).clamp_min(1e-12)
    keep = torch.nonzero(deviation > 1e-7 * scale).flatten()
    if not len(keep):
        found = f"all {features.shape[1]} features are constant over {len(features)} images"
        raise UserError(where, found, "The model says the same of every image: train it, or take another layer")
    return keep, values.mean(0)[keep], deviation[keep]


def standardise(features: Tensor, keep: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The varying columns in units of their standard deviation, float64 n×d."""
    return (features.double()[:, keep] - mean) / std


def check_classes(labels: Tensor, classes: int, least: int, where: str) -> None:
    """Refuse a class with fewer images than a model of it needs.

    Raises:
        UserError: names the class and the counts.
    """
    counts = torch.bincount(labels, minlength=classes)
    short = int(counts.argmin())
    if int(counts[short]) < least:
        found = f"class {short} has {int(counts[short])} training images, {least} are needed"
        raise UserError(where, found, "Ask for less (fewer components), merge classes, or give more images")

"""The detectors that params.yaml may name. To add one: its file in `detectors/`, and a line here."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from medrobust.core.errors import UserError
from medrobust.core.params.hyperparameters import build

if TYPE_CHECKING:
    from medrobust.detection.base import Detector

#: name -> module:class; the module is imported when the detector is built
DETECTORS = {
    "gmm": "medrobust.detection.detectors.gmm:ClasswiseMixture",
    "kde": "medrobust.detection.detectors.kde:KernelDensity",
    "lid": "medrobust.detection.detectors.lid:IntrinsicDimensionality",
    "mahalanobis": "medrobust.detection.detectors.mahalanobis:Mahalanobis",
    "dfeat": "medrobust.detection.detectors.dfeat:DeepFeatureClassifier",
    "dropout": "medrobust.detection.detectors.dropout:DropoutUncertainty",
    "squeeze": "medrobust.detection.detectors.squeeze:FeatureSqueezing",
}


def build_detector(name: str, settings: Mapping[str, Any], where: str) -> "Detector":
    """A detector that is not fitted yet.

    Only classes of this registry are built, so a file that names a detector (params.yaml, a guard's card.json)
    cannot make other code run.

    Args:
        name: key of `DETECTORS`.
        settings: hyper-parameters; those left out have the class's defaults.
        where: file and key that name the detector, for messages.

    Raises:
        UserError: a name that is not in the registry, an unknown hyper-parameter, or a value that its annotation
            does not allow.
    """
    if name not in DETECTORS:
        raise UserError(where, f"no detector {name!r}", f"Known: {', '.join(DETECTORS)}")
    module, _, kind = DETECTORS[name].partition(":")
    detector: Detector = build(getattr(import_module(module), kind), settings, where)
    return detector

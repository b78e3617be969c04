"""Which detectors params.yaml may name. To add one: its file and a line here."""

from dataclasses import MISSING, fields
from importlib import import_module
from typing import Any

from medrobust.detection.base import Detector
from medrobust.errors import UserError

#: name -> module:class, imported when it is asked for
DETECTORS = {
    "gmm": "medrobust.detection.gmm:ClasswiseMixture",
    "kde": "medrobust.detection.kde:KernelDensity",
    "lid": "medrobust.detection.lid:IntrinsicDimensionality",
    "mahalanobis": "medrobust.detection.mahalanobis:Mahalanobis",
    "dfeat": "medrobust.detection.dfeat:DeepFeatureClassifier",
    "dropout": "medrobust.detection.dropout:DropoutUncertainty",
    "squeeze": "medrobust.detection.squeeze:FeatureSqueezing",
}


def detector_class(name: str, where: str = "params.yaml: detect.detectors") -> type[Detector]:
    """The class of a name.

    Raises:
        UserError: an unknown name.
    """
    if name not in DETECTORS:
        raise UserError(where, f"no detector {name!r}", f"Known: {', '.join(DETECTORS)}")
    module, _, kind = DETECTORS[name].partition(":")
    found: type[Detector] = getattr(import_module(module), kind)
    return found


def build_detector(name: str, settings: dict[str, Any], where: str = "params.yaml: detect.detectors") -> Detector:
    """A detector that is not fitted yet.

    Args:
        name: a key of `DETECTORS`.
        settings: its hyper-parameters; those left out have the class's defaults.
        where: whose settings they are, for messages.

    Raises:
        UserError: an unknown name or hyper-parameter, or a value of another type than the default's.
    """
    kind = detector_class(name, where)
    known = {item.name: item for item in fields(kind) if item.init}
    for key, value in settings.items():
        if key not in known:
            allowed = ", ".join(known) or "nothing"
            raise UserError(f"{where}.{name}.{key}", "unknown hyper-parameter", f"Known: {allowed}")
        default = known[key].default
        if default is MISSING or default is None:
            continue
        number = isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
        if type(value) is not type(default) and not number:
            raise UserError(f"{where}.{name}.{key}", f"got {value!r}", f"Give a value like {default!r}")
    return kind(**settings)

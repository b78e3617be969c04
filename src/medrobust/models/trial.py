"""A trial of a backbone before any training: some architectures of timm build and fail only when they are used."""

from typing import Any

import torch

from medrobust.core.errors import UserError
from medrobust.core.params.training import BackboneParams
from medrobust.models.build import build_classifier, set_trainable
from medrobust.models.classifier import Classifier
from medrobust.models.feature_maps import map_layers, recorded
from medrobust.models.timm_import import import_timm

#: What architectures raise where a size, a head or a layer is not as this package needs it.
FAULTS = (
    RuntimeError, AttributeError, TypeError, ValueError, LookupError, AssertionError, ImportError, ArithmeticError,
)  # fmt: skip
CLASSES = ["a", "b", "c"]


def try_backbone(name: str, model: BackboneParams) -> None:
    """Build a backbone, and run it once as its stages will, in less than a second for most architectures.

    Args:
        name: of its block in params.yaml.
        model: the block. Weights of timm are not downloaded; a local file of weights is read.

    Raises:
        UserError: the architecture, its size, head, weights, `trainable`, `detect` or `explain` do not work.
    """
    where = f"params.yaml: models.{name}"
    pretrained = model.weights == "pretrained"
    network = model.model_copy(update={"weights": "none"}) if pretrained else model
    key, remedy = "timm", f"Use another architecture or image_size ({_own_size(model.timm)})"
    try:
        classifier = build_classifier(network, CLASSES)
        _run(classifier)
        key, remedy = "detect", "Set it to [], or use another architecture"
        if model.detect:
            classifier.eval().features(torch.full((2, 3, 8, 8), 0.5))
        key, remedy = "explain", "Set it to false, or use another architecture"
        if model.explain:
            _check_maps(classifier)
        key, remedy = "trainable", "Set trainable: all or head, or use another architecture"
        set_trainable(classifier, model.trainable)
    except UserError as error:
        if key == "timm":
            found = error.where.replace("params.yaml: models.*", where)
            raise UserError(found, error.found, error.remedy) from None
        place = "" if error.where.startswith("params.yaml: models.*") else f"{error.where}: "
        raise UserError(f"{where}.{key}", f"{place}{error.found}", remedy) from None
    except FAULTS as error:
        first = (str(error).strip().splitlines() or ["no message"])[0]
        found = f"{model.timm} at {model.image_size} pixels fails ({type(error).__name__}: {first})"
        raise UserError(f"{where}.{key}", found, remedy) from None


def _run(classifier: Classifier) -> None:
    """Raise one of `FAULTS` if the classifier gives no logits, in training or after it."""
    images = torch.full((2, 3, 8, 8), 0.5)
    for training in (True, False):
        logits: Any = classifier.train(training)(images)
        if not isinstance(logits, torch.Tensor) or logits.shape != (2, len(CLASSES)):
            raise ValueError("its output is no n×K tensor of logits")


def _check_maps(classifier: Classifier) -> None:
    """Raise one of `FAULTS`, or a UserError, if a layer for Grad-CAM gives no maps."""
    layers = map_layers(classifier)
    with recorded([layer.module for layer in layers]) as seen, torch.no_grad():
        classifier.eval()(torch.full((1, 3, 8, 8), 0.5))
    for layer, (_, output) in zip(layers, seen, strict=True):
        layer.maps(output)


def _own_size(name: str) -> str:
    """The size of images that timm states for an architecture."""
    timm = import_timm()
    config = timm.get_pretrained_cfg(name, allow_unregistered=True) if timm.is_model(name) else None
    return f"timm's own is {config.input_size[-1]}" if config else "see timm.list_models()"

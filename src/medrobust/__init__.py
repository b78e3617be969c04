"""medrobust: from a medical image data set to robust, honestly evaluated classifiers."""

from importlib import import_module
from typing import Any

#: Name -> module that has it, imported when asked for, so that no stage pays for what it does not use.
FACE = {"load": "medrobust.models.folder", "predict": "medrobust.detection.guard"}


def __getattr__(name: str) -> Any:
    """Give `medrobust.load` and `medrobust.predict` without making every stage import torch."""
    if name in FACE:
        return getattr(import_module(FACE[name]), name)
    raise AttributeError(name)

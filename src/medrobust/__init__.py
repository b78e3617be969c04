"""medrobust: from a medical image data set to robust, honestly evaluated classifiers."""

from importlib import import_module
from typing import Any

#: Public name -> module that defines it; imported on first use, so that a stage imports only what it needs.
PUBLIC = {"load": "medrobust.models.folder", "predict": "medrobust.inference"}


def __getattr__(name: str) -> Any:
    """Provide `medrobust.load` and `medrobust.predict` without importing torch in every stage."""
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    raise AttributeError(name)

"""medrobust: from a medical image data set to robust, honestly evaluated classifiers."""

from importlib import import_module
from typing import Any

#: Public name -> module that defines it; imported on first use, so that a stage imports only what it needs.
PUBLIC = {
    "load": "medrobust.models.folder", "predict": "medrobust.inference.predict",
    "attack": "medrobust.inference.attack", "evaluate": "medrobust.inference.evaluate",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Provide `medrobust.load` and its siblings without importing torch in every stage."""
    if name == "__version__":
        from importlib.metadata import version

        return version("medrobust")
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    raise AttributeError(name)

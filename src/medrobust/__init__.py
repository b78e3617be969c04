"""medrobust: from a medical image data set to robust, honestly evaluated classifiers."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Give `medrobust.load` without making every stage import torch."""
    if name == "load":
        from medrobust.models.checkpoint import load

        return load
    raise AttributeError(name)

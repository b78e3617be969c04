"""Corruptions by their registered names and by modality. Light: torch is imported with the class."""

from importlib import import_module
from typing import TYPE_CHECKING

from medrobust.core.errors import UserError
from medrobust.corruptions.registry import CORRUPTIONS, MODALITIES

if TYPE_CHECKING:
    from medrobust.corruptions.base import Corruption


def load_corruption(name: str) -> "Corruption":
    """A registered corruption; only registered names are imported.

    Raises:
        UserError: there is no corruption of that name.
    """
    if name not in CORRUPTIONS:
        raise UserError("corruption", f"there is no {name!r}", f"Known: {', '.join(CORRUPTIONS)}")
    module, _, kind = CORRUPTIONS[name].partition(":")
    found: Corruption = getattr(import_module(module), kind)()
    return found


def chosen_names(modality: str, names: list[str]) -> list[str]:
    """The corruptions of a modality in the order of the registry, or those of them that are named.

    Raises:
        UserError: a named corruption does not exist, or does not occur in the modality.
    """
    known = MODALITIES[modality]
    if unknown := [name for name in names if name not in known]:
        found = f"{unknown[0]!r} is no corruption of {modality}"
        raise UserError("params.yaml: corruptions.names", found, f"Use some of: {', '.join(known)}")
    return [name for name in known if name in (names or known)]

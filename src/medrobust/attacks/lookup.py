"""Attack classes by their registered names. Light: torch is imported with the class."""

from importlib import import_module
from typing import TYPE_CHECKING

from medrobust.attacks.registry import ATTACKS
from medrobust.core.errors import UserError

if TYPE_CHECKING:
    from medrobust.attacks.base import Attack


def load_attack(name: str, where: str = "attack") -> "type[Attack]":
    """The class of a registered attack.

    Only registered names are imported, so that a resolved suite from elsewhere cannot name code to run. `where` is
    the key of params.yaml, for the message.

    Raises:
        UserError: there is no attack of that name.
    """
    if name not in ATTACKS:
        raise UserError(where, f"no attack {name!r}", f"Known: {', '.join(ATTACKS)}")
    module, _, kind = ATTACKS[name].partition(":")
    return getattr(import_module(module), kind)

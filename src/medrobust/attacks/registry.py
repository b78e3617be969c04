"""Attacks that a suite may name. To add one: write its file, add a line here, and name it in params.yaml."""

from importlib import import_module
from typing import TYPE_CHECKING

from medrobust.core.errors import UserError

if TYPE_CHECKING:
    from medrobust.attacks.base import Attack

#: name in a suite -> module:class, imported on first use
ATTACKS = {
    "fgsm": "medrobust.attacks.methods.pgd:FGSM",
    "pgd": "medrobust.attacks.methods.pgd:PGD",
    "bim": "medrobust.attacks.methods.iterative:BIM",
    "targeted_bim": "medrobust.attacks.methods.iterative:TargetedBIM",
    "mifgsm": "medrobust.attacks.methods.iterative:MIFGSM",
    "iterative": "medrobust.attacks.methods.iterative:IteratedGradient",
    "pgd_l2": "medrobust.attacks.methods.iterative:PGDL2",
    "cw_pgd": "medrobust.attacks.methods.iterative:CWPGD",
    "tifgsm": "medrobust.attacks.methods.iterative:TIFGSM",
    "vmifgsm": "medrobust.attacks.methods.iterative:VMIFGSM",
    "jitter": "medrobust.attacks.methods.iterative:Jitter",
    "apgd": "medrobust.attacks.methods.apgd:APGD",
    "apgd_t": "medrobust.attacks.methods.apgd:APGDT",
    "fab": "medrobust.attacks.methods.minimal:FAB",
    "fab_t": "medrobust.attacks.methods.minimal:FABT",
    "deepfool": "medrobust.attacks.methods.minimal:DeepFool",
    "autoattack": "medrobust.attacks.methods.autoattack:AutoAttack",
    "square": "medrobust.attacks.methods.square:Square",
    "square_l2": "medrobust.attacks.methods.square_l2:SquareL2",
    "cw": "medrobust.attacks.methods.cw:CW",
    "one_pixel": "medrobust.attacks.methods.one_pixel:OnePixel",
    "stripe": "medrobust.attacks.methods.stripe:Stripe",
    "noise": "medrobust.attacks.methods.noise:Noise",
    "universal": "medrobust.attacks.methods.universal:Universal",
    "transfer": "medrobust.attacks.methods.transfer:Transfer",
    "torchattacks": "medrobust.attacks.methods.torchattacks_adapter:Torchattacks",
}


def load_attack(name: str, where: str = "attack") -> "type[Attack]":
    """The class of a registered attack.

    Args:
        name: a key of `ATTACKS`.
        where: the key of params.yaml, for the message.

    Raises:
        UserError: there is no attack of that name. So a file with resolved attacks cannot name code to run.
    """
    if name not in ATTACKS:
        raise UserError(where, f"no attack {name!r}", f"Known: {', '.join(ATTACKS)}")
    module, _, kind = ATTACKS[name].partition(":")
    found: type[Attack] = getattr(import_module(module), kind)
    return found

"""Which objectives `train.objective` and `adv.objective` may name. To add one: its function, and a line here."""

from medrobust.core.code_hash import code_hash
from medrobust.core.errors import UserError
from medrobust.training.settings import Entry

PACKAGE = "medrobust.training.objectives"

#: name in params.yaml -> where it is, imported when it is asked for
OBJECTIVES = {
    "cross_entropy": Entry(target=f"{PACKAGE}.clean:cross_entropy", attacks=False, inside=False),
    "gce": Entry(
        target=f"{PACKAGE}.clean:guided_complement_entropy", attacks=False, inside=False, smooths=False, classes=3
    ),
    "mixed": Entry(target=f"{PACKAGE}.pgd:mixed"),
    "pgd_at": Entry(target=f"{PACKAGE}.pgd:pgd_at"),
    "curriculum": Entry(target=f"{PACKAGE}.pgd:curriculum"),
    "fgsm_rs": Entry(target=f"{PACKAGE}.single_step:fgsm_rs", single_step=True),
    "n_fgsm": Entry(target=f"{PACKAGE}.single_step:n_fgsm", single_step=True, inside=False),
    "free": Entry(target=f"{PACKAGE}.single_step:free", single_step=True, replayed=True, inside=False),
    "trades": Entry(target=f"{PACKAGE}.trades:trades"),
    "mart": Entry(target=f"{PACKAGE}.trades:mart"),
    "ssat": Entry(target=f"{PACKAGE}.ssat:ssat"),
}


def find(name: str, block: str, *, attacks: bool) -> Entry:
    """The objective of that name.

    Args:
        name: as params.yaml has it.
        block: of params.yaml, for the message.
        attacks: whether the training has an attack to offer.

    Raises:
        UserError: there is none of that name for this training; the message lists those that there are.
    """
    known = {key: entry for key, entry in OBJECTIVES.items() if attacks or not entry.attacks}
    if name not in known:
        raise UserError(f"params.yaml: {block}.objective", f"no objective {name!r}", f"Known: {', '.join(known)}")
    return known[name]


def source_hash(entries: list[Entry]) -> str:
    """sha256 over the files of this folder that the objectives use.

    What they use of other folders is not in it: the stages list that themselves.
    """
    return code_hash((entry.target.partition(":")[0] for entry in entries), within=PACKAGE)

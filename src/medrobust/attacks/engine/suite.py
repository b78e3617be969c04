"""Resolve a suite: check each attack's hyper-parameters and fix the code that they stand for.

The result is a small file that attack cells depend on. Because it holds the hash of the source files that the
suite's attacks use, an edit of one attack re-runs the cells that use it, and a new attack re-runs none.
"""

from typing import Any

from medrobust.attacks.base import Attack
from medrobust.attacks.registry import ATTACKS, load_attack
from medrobust.core.code_hash import code_hash
from medrobust.core.errors import UserError
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.params.hyperparameters import build


def resolve_suite(name: str, suite: SuiteParams) -> dict[str, Any]:
    """The suite as attack cells read it.

    Returns:
        `name`, `norm`, `eps` (rising), `give_up`, `attacks`, `sources`.

    Raises:
        UserError: an unknown attack, a wrong hyper-parameter, a norm that an attack does not serve, or a
            configuration that cannot reach its radius.
    """
    where = f"params.yaml: attacks.suites.{name}"
    eps = sorted(set(suite.eps))
    resolved, modules = [], set()
    for spec in suite.attacks:
        attack = str(spec.get("name"))
        settings = {key: value for key, value in spec.items() if key != "name"}
        _check(load_attack(attack, f"{where}.attacks"), settings, suite, f"{where}.{attack}")
        modules.add(ATTACKS[attack].partition(":")[0])
        if isinstance(inner := settings.get("attack"), dict):  # what a transfer runs on its surrogate
            modules.add(ATTACKS[inner["name"]].partition(":")[0])
        resolved.append({"name": attack, "hyperparameters": settings})
    return {
        "name": name,
        "norm": suite.norm,
        "eps": eps,
        "give_up": suite.give_up,
        "attacks": resolved,
        "sources": code_hash(modules),
    }


def _check(kind: type[Attack], settings: dict[str, Any], suite: SuiteParams, where: str) -> None:
    if suite.norm not in kind.norms:
        found = f"supports {' and '.join(kind.norms)}, but the suite has {suite.norm}"
        raise UserError(where, found, "Move it to a suite with its norm")
    for eps in suite.eps:
        build(kind, settings, where, eps=eps, norm=suite.norm)

"""Suites as stages read them: hyper-parameters checked, code and surrogates fixed. Light: no torch at import.

Attack cells depend on the resolved file. Its hashes of code let an edit of one attack re-run only its cells.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medrobust.attacks.lookup import load_attack
from medrobust.core.code import chosen_entries
from medrobust.core.lineage import suite_hash
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.params.hyperparameters import build
from medrobust.core.records import file_hash, read_json, write_json


def resolve_suite(name: str, suite: SuiteParams, code: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The suite as attack cells read it: `name`, `norm`, `eps` (rising), `give_up`, `attacks`, `code`.

    `code` maps `attacks/<name>` to the hash of its code, as the stage `code` writes it (None: no hashes).

    Raises:
        UserError: an unknown attack, a wrong hyper-parameter, a norm that an attack does not serve, or a
            configuration that cannot reach its radius.
    """
    where = f"params.yaml: attacks.suites.{name}"
    for number, spec in enumerate(suite.attacks):
        attack = str(spec.get("name"))
        location = f"{where}.attacks[{number}].{attack}"
        settings = {key: value for key, value in spec.items() if key != "name"}
        kind = load_attack(attack, f"{where}.attacks")
        for eps in suite.eps:
            build(kind, settings, location, eps=eps, norm=suite.norm)
    return {**plain_suite(name, suite), "code": chosen_entries(code, "attacks", suite.attack_names())}


def plain_suite(name: str, suite: SuiteParams) -> dict[str, Any]:
    """The resolved suite without the code of its attacks and without any check."""
    attacks = [
        {"name": str(spec.get("name")), "hyperparameters": {k: v for k, v in spec.items() if k != "name"}}
        for spec in suite.attacks
    ]
    return {
        "name": name,
        "norm": suite.norm,
        "eps": sorted(set(suite.eps)),
        "give_up": suite.give_up,
        "attacks": attacks,
    }


def write_surrogate(model: Path, out: Path) -> None:
    """Write `source` and `sha256` of a checkpoint's folder to the JSON file called after the surrogate."""
    write_json(out, {"source": str(model), "sha256": file_hash(model / "model.safetensors")})


def read_suite(folder: Path) -> dict[str, Any]:
    """A resolved suite: `<folder>/suite.json`, with the weights of each surrogate from `<folder>/<name>.json`.

    Raises:
        UserError: a file is missing.
    """
    suite: dict[str, Any] = read_json(folder / "suite.json")
    for entry in suite["attacks"]:
        settings = entry["hyperparameters"]
        if entry["name"] == "transfer" and not settings.get("sha256"):
            entry["hyperparameters"] = settings | read_json(folder / f"{settings['source']}.json")
    return suite


def suite_hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The hash of each named suite, from the folder of resolved suites."""
    return {name: suite_hash(read_suite(folder / name)) for name in sorted(names)}

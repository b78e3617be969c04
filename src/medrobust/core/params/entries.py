"""Which entries of the registries params.yaml names."""

from collections.abc import Iterable, Mapping

from medrobust.core.params.attacks import SuiteParams
from medrobust.core.params.training import ModelParams


def used_entries(
    source: str, objectives: Iterable[str], models: Iterable[ModelParams], suites: Iterable[SuiteParams],
    detectors: Iterable[str],
) -> Mapping[str, set[str]]:  # fmt: skip
    """Kind of registry (`core.code.REGISTRIES`) -> names in use.

    Models may name other objectives in their overrides; the attack inside a suite's `transfer` counts too.
    """
    overrides = [block.get("objective") for model in models for block in (model.train, model.adv)]
    specs = [attack for suite in suites for attack in suite.attacks]
    inner = [spec["attack"] for spec in specs if isinstance(spec.get("attack"), dict)]
    return {
        "sources": {source},
        "objectives": {*objectives, *(str(name) for name in overrides if name)},
        "attacks": {str(spec.get("name")) for spec in [*specs, *inner]},
        "detectors": {*detectors},
    }

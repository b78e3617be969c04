"""Which entries of the registries params.yaml names."""

from collections.abc import Iterable, Mapping

from medrobust.core.params.attacks import SuiteParams
from medrobust.core.params.training import ModelParams


def used_entries(
    source: str, objectives: Iterable[str], models: Iterable[ModelParams], suites: Iterable[SuiteParams],
    detectors: Iterable[str], corruptions: Iterable[str],
) -> Mapping[str, set[str]]:  # fmt: skip
    """Kind of registry (`core.code.REGISTRIES`) -> names in use.

    Models may name other objectives in their overrides.
    """
    overrides = [block.get("objective") for model in models for block in (model.train, model.adv)]
    return {
        "sources": {source},
        "objectives": {*objectives, *(str(name) for name in overrides if name)},
        "attacks": {name for suite in suites for name in suite.attack_names()},
        "detectors": {*detectors},
        "corruptions": {*corruptions},
    }

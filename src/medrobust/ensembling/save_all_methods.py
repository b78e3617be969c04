"""The rules of all methods on disk, so that suites can attack those that are not in force too."""

from collections.abc import Mapping
from pathlib import Path

from medrobust.core.params.ensemble import EnsembleParams
from medrobust.core.records import atomic_dir, write_json
from medrobust.ensembling.compare import Comparison
from medrobust.ensembling.fit import facts_of
from medrobust.ensembling.sample import Sample
from medrobust.models.ensemble import save_ensemble


def save_all_methods(
    folder: Path, members: Mapping[str, Path], found: Comparison, sample: Sample, params: EnsembleParams
) -> None:
    """Write a folder a method, each as `save_ensemble` writes it.

    A method that was impossible has a card with `method` and `impossible` (why), because DVC needs the folder of
    every cell that may depend on it.

    Args:
        folder: of all methods.
        members: name -> folder of the checkpoint, in the order of the rules.
        found: what was fitted.
        sample: what the members say of the validation images.
        params: of params.yaml; `params.method` is not looked at.
    """
    with atomic_dir(folder) as temporary:
        for name, record in found.records.items():
            if name not in found.rules:
                write_json(temporary / name / "card.json", {"method": name, **record})
                continue
            rule = found.rules[name]
            facts = facts_of(list(members), rule, sample, params.model_copy(update={"method": name}))
            save_ensemble(temporary / name, members, rule, facts)

"""Save the ensembles of all methods, so that suites can attack those beside `ensemble.method` too."""

from collections.abc import Mapping
from pathlib import Path

from medrobust.core.params.ensemble import EnsembleParams
from medrobust.core.records import atomic_dir, write_json
from medrobust.ensembling.compare import MethodComparison
from medrobust.ensembling.fit import fit_summary
from medrobust.ensembling.member_predictions import MemberPredictions
from medrobust.models.ensemble import save_ensemble


def save_all_methods(
    folder: Path,
    members: Mapping[str, Path],
    comparison: MethodComparison,
    predictions: MemberPredictions,
    params: EnsembleParams,
) -> None:
    """Write one folder per method, each as `save_ensemble` writes it.

    A method that was not fitted gets a card with `method` and `not_fitted` (the reason), because DVC needs the
    folder of every cell that may depend on it. `members` (name -> folder of the checkpoint) are in the order of
    the combinations. `params.method` is not used.
    """
    with atomic_dir(folder) as temporary:
        for name, record in comparison.records.items():
            if name not in comparison.combinations:
                write_json(temporary / name / "card.json", {"method": name, **record})
                continue
            combination = comparison.combinations[name]
            own = params.model_copy(update={"method": name})
            facts = fit_summary(list(members), combination, predictions, own)
            save_ensemble(temporary / name, members, combination, facts)

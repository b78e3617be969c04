"""Resolve a backbone's settings: overrides in place, objectives found, what does not fit refused."""

from medrobust.errors import UserError
from medrobust.params.schema import override
from medrobust.params.training import AdvParams, ModelParams, TrainParams, TuneParams
from medrobust.training.objectives.registry import find, source_hash
from medrobust.training.settings import Settings


def resolve_settings(
    backbone: str, model: ModelParams, train: TrainParams, adv: AdvParams, tune: TuneParams
) -> dict[str, Settings]:
    """The settings of the stages `tune`, `train` and `adv_train`.

    Raises:
        UserError: an override that does not fit, an unknown objective, or one without what it needs.
    """
    own = override(train, model.train, f"models.{backbone}.train")
    own_adv = override(adv, model.adv, f"models.{backbone}.adv")
    clean, robust = find(own.objective, "train", attacks=False), find(own_adv.objective, "adv", attacks=True)
    if (own_adv.objective == "ssat") != bool(own_adv.unlabelled):
        found = f"{own_adv.unlabelled} with objective {own_adv.objective}"
        remedy = "ssat, and it alone, takes a share of the training patients (0.5) or a folder of images"
        raise UserError("params.yaml: adv.unlabelled", found, remedy)
    base = {
        "backbone": backbone, "model": model.model_copy(update={"train": {}, "adv": {}}), "train": own,
        "objective": clean, "sources": source_hash([clean]),
    }  # fmt: skip
    both = {**base, "adv": own_adv, "adv_objective": robust, "sources": source_hash([clean, robust])}
    return {
        "tune": Settings.model_validate({**(both if tune.objective == "robust" else base), "tune": tune}),
        "train": Settings.model_validate(base),
        "adv_train": Settings.model_validate(both),
    }

"""Resolve a backbone's settings: overrides in place, objectives found, what does not fit refused."""

from medrobust.errors import UserError
from medrobust.params.hyperparameters import reaches
from medrobust.params.schema import override
from medrobust.params.training import AdvParams, ModelParams, TrainParams, TuneParams
from medrobust.training.objectives.registry import find, source_hash
from medrobust.training.settings import Entry, Settings, validation_steps

#: Objectives of a single step inside the ball, and those whose own step has no ball or ignores `adv.alpha`.
ONE_STEP, NO_PGD = ("fgsm_rs",), ("n_fgsm", "free", "cross_entropy", "gce")


def resolve_settings(
    backbone: str, model: ModelParams, train: TrainParams, adv: AdvParams, tune: TuneParams
) -> dict[str, Settings]:
    """The settings of the stages `tune`, `train` and `adv_train`.

    Raises:
        UserError: an override that does not fit, an unknown objective, one without what it needs, or a step size
            with which an attack would not reach its radius.
    """
    own = override(train, model.train, f"models.{backbone}.train")
    own_adv = override(adv, model.adv, f"models.{backbone}.adv")
    clean, robust = find(own.objective, "train", attacks=False), find(own_adv.objective, "adv", attacks=True)
    if (own_adv.objective == "ssat") != bool(own_adv.unlabelled):
        found = f"{own_adv.unlabelled} with objective {own_adv.objective}"
        remedy = "ssat, and it alone, takes a share of the training patients (0.5) or a folder of images"
        raise UserError("params.yaml: adv.unlabelled", found, remedy)
    _check_alpha(own_adv, robust, f"models.{backbone}.adv" if "alpha" in model.adv else "adv")
    _refuse_short(adv, adv.steps, "adv", "the PGD on which the vote is fitted")
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


def _check_alpha(adv: AdvParams, objective: Entry, block: str) -> None:
    """Refuse a step size that is too small for the objective's own attack, or for that of robust validation.

    `curriculum` needs no check of its first epochs: a share of eps gets as large a share of the steps at least.
    """
    if adv.objective not in NO_PGD:
        steps = 1 if adv.objective in ONE_STEP else adv.steps
        _refuse_short(adv, steps, block, f"the training attack of {adv.objective}")
    if validation_steps(adv, objective.single_step) == adv.steps:  # else it takes alpha: auto
        _refuse_short(adv, adv.steps, block, "the PGD of robust validation")


def _refuse_short(adv: AdvParams, steps: int, block: str, name: str) -> None:
    if adv.alpha == "auto" or reaches(adv.alpha, steps, adv.eps):
        return
    found = f"{name} reaches {adv.alpha:g} x {steps} = {adv.alpha * steps:g} of eps {adv.eps:g}"
    remedy = (
        "Say alpha: auto, a larger alpha, or more steps" if steps > 1 else "Say alpha: auto, or a larger alpha"
    )
    raise UserError(f"params.yaml: {block}.alpha", found, f"Say alpha: auto{more}")

"""Resolve the training settings of a backbone: apply its overrides, look up its objectives, check that all fit."""

import csv
from collections.abc import Mapping
from pathlib import Path

from medrobust.core.code import chosen_entries
from medrobust.core.content import content_hash
from medrobust.core.errors import UserError
from medrobust.core.params.hyperparameters import reaches
from medrobust.core.params.schema import override
from medrobust.core.params.training import UNLABELLED_SPLIT, AdvParams, ModelParams, TrainParams, TuneParams
from medrobust.data.split import UNLABELLED
from medrobust.models.packaged_weights import package_file
from medrobust.training.objectives.registry import OBJECTIVES
from medrobust.training.settings import ObjectiveEntry, TrainingSettings, validation_steps


def resolve_settings(
    backbone: str, model: ModelParams, train: TrainParams, adv: AdvParams, tune: TuneParams,
    code: Mapping[str, str] | None = None,
) -> dict[str, TrainingSettings]:  # fmt: skip
    """The settings of the stages `tune`, `train` and `adv_train` of one backbone.

    The blocks of params.yaml come without the backbone's overrides. `code` is `objectives/<name>` -> hash of its
    code, as the stage `code` writes it.

    Raises:
        UserError: an override is invalid, an objective is unknown or lacks what it needs, a step size is too small
            for an attack to reach its radius, or a file of weights or folder of images does not exist.
    """
    own_tune = override(tune, model.tune, f"models.{backbone}.tune")
    own_train = override(train, model.train, f"models.{backbone}.train")
    own_adv = override(adv, model.adv, f"models.{backbone}.adv")
    clean = find_objective(own_train.objective, "train", attacks=False)
    adversarial = find_objective(own_adv.objective, "adv", attacks=True)
    if (own_adv.objective == "ssat") != bool(own_adv.unlabelled):
        found = f"{own_adv.unlabelled} with objective {own_adv.objective}"
        remedy = "Set a share of the training patients (0.5) or a folder of images for ssat, and 0 for all others"
        raise UserError("params.yaml: adv.unlabelled", found, remedy)
    chosen = ((own_train.objective, clean), (own_adv.objective, adversarial))
    unsmoothed = [name for name, entry in chosen if not entry.uses_label_smoothing]
    if own_train.label_smoothing and unsmoothed:
        found = f"{own_train.label_smoothing:g} with objective {unsmoothed[0]}, which has no target to smooth"
        raise UserError("params.yaml: train.label_smoothing", found, "Set it to 0, or use another objective")
    _check_draws(own_adv, adversarial)
    _check_alpha(own_adv, adversarial, f"models.{backbone}.adv" if "alpha" in model.adv else "adv")
    _check_reach(adv, adv.steps, "adv", "the PGD on which the ensemble is fitted")
    if own_tune.trials and own_tune.objective == "robust" and own_adv.objective == "ssat":
        remedy = "Set tune.objective: clean, tune.trials: 0, or another adv.objective"
        raise UserError("params.yaml: tune.objective", "robust with ssat, but studies use labelled images", remedy)
    files, folders = _input_hashes(backbone, model, own_adv)
    fields = {*ModelParams.model_fields} - {"tune", "train", "adv"}
    network = ModelParams.model_validate(model.model_dump(include=fields))
    clean_settings = TrainingSettings(
        backbone=backbone, model=network, train=own_train, objective=clean,
        code=chosen_entries(code, "objectives", {own_train.objective}), files=files,
    )  # fmt: skip
    adv_settings = clean_settings.model_copy(
        update={
            "files": {**files, **folders}, "adv": own_adv, "adv_objective": adversarial,
            "code": chosen_entries(code, "objectives", {own_train.objective, own_adv.objective}),
        }
    )  # fmt: skip
    tuned_settings = adv_settings if own_tune.objective == "robust" else clean_settings
    tune_settings = tuned_settings.model_copy(update={"tune": own_tune})
    return {"tune": tune_settings, "train": clean_settings, "adv_train": adv_settings}


def find_objective(name: str, block: str, *, attacks: bool) -> ObjectiveEntry:
    """Look up the objective that `block` of params.yaml names; with `attacks` it may attack the model.

    Raises:
        UserError: there is no such objective for this training; the message lists those that exist.
    """
    known = {key: entry for key, entry in OBJECTIVES.items() if attacks or not entry.attacks}
    if name not in known:
        raise UserError(f"params.yaml: {block}.objective", f"no objective {name!r}", f"Known: {', '.join(known)}")
    return known[name]


def check_split(settings: dict[str, TrainingSettings], split: Path) -> None:
    """Check that the split table has what the settings of `resolve_settings` need.

    Raises:
        UserError: an objective needs more classes, or there are no unlabelled images.
    """
    with split.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    adv, classes = settings["adv_train"].adv, {row["label"] for row in rows}
    if adv and adv.unlabelled == UNLABELLED_SPLIT and not any(row["split"] == UNLABELLED for row in rows):
        remedy = "Set split.counts with a number of unlabelled images"
        raise UserError("params.yaml: adv.unlabelled", f"split, but {split} has no unlabelled image", remedy)
    for block, entry in (("train", settings["train"].objective), ("adv", settings["adv_train"].adv_objective)):
        if entry and len(classes) < entry.min_classes:
            found = f"needs {entry.min_classes} classes or more, {split} has {len(classes)}"
            raise UserError(f"params.yaml: {block}.objective", found, "Use another objective")


def _check_alpha(adv: AdvParams, objective: ObjectiveEntry, block: str) -> None:
    """Check that the step size reaches eps in the objective's attack and in robust validation."""
    # The early epochs of `curriculum` need no check: a share of eps has at least that share of the steps.
    if objective.must_reach_eps:
        steps = 1 if objective.single_step else adv.steps
        _check_reach(adv, steps, block, f"the training attack of {adv.objective}")
    if validation_steps(adv, objective.single_step) == adv.steps:  # otherwise validation uses alpha: auto
        _check_reach(adv, adv.steps, block, "the PGD of robust validation")


def _check_draws(adv: AdvParams, objective: ObjectiveEntry) -> None:
    """Check that the objective reads `adv.eps_min` and `adv.random_start`, if they are set."""
    if objective.draws_attack or not objective.attacks:
        return
    for key, changed in (("eps_min", adv.eps_min is not None), ("random_start", not adv.random_start)):
        if changed:
            known = ", ".join(name for name, entry in OBJECTIVES.items() if entry.draws_attack)
            found = f"{getattr(adv, key)} with objective {adv.objective}, whose attack does not read it"
            raise UserError(f"params.yaml: adv.{key}", found, f"Use one of: {known}")


def _check_reach(adv: AdvParams, steps: int, block: str, attack: str) -> None:
    if adv.allow_weak or adv.alpha == "auto" or reaches(adv.alpha, steps, adv.eps):
        return
    found = f"{attack} reaches {adv.alpha:g} x {steps} = {adv.alpha * steps:g} of eps {adv.eps:g}"
    more = ", more steps" if steps > 1 else ""
    remedy = f"Set alpha: auto, a larger alpha{more}, or allow_weak: true"
    raise UserError(f"params.yaml: {block}.alpha", found, remedy)


def _input_hashes(backbone: str, model: ModelParams, adv: AdvParams) -> tuple[dict[str, str], dict[str, str]]:
    """Hashes by path of the file of weights and of the folder of unlabelled images; {} where there is none."""
    files, folders = {}, {}
    if model.weights == "package":
        package_file(model.timm)  # its hash is part of the code, so it is no input of its own
    elif model.weights not in {"none", "pretrained"}:
        if not Path(model.weights).expanduser().is_file():
            remedy = "Set the path of a file, or weights: none | pretrained | package"
            raise UserError(f"params.yaml: models.{backbone}.weights", f"{model.weights} is not a file", remedy)
        files[model.weights] = content_hash(model.weights)
    if isinstance(adv.unlabelled, str) and adv.unlabelled != UNLABELLED_SPLIT:
        if not Path(adv.unlabelled).expanduser().is_dir():
            remedy = "Set a folder with images, a share of the training patients, or split (docs/training.md)"
            raise UserError("params.yaml: adv.unlabelled", f"{adv.unlabelled} is not a folder", remedy)
        folders[adv.unlabelled] = content_hash(adv.unlabelled)
    return files, folders

"""Resolve a backbone's settings: overrides in place, objectives found, what does not fit refused."""

import csv
from collections.abc import Mapping
from pathlib import Path

from medrobust.core.code import chosen_entries
from medrobust.core.errors import UserError
from medrobust.core.params.hyperparameters import reaches
from medrobust.core.params.schema import override
from medrobust.core.params.training import AdvParams, ModelParams, TrainParams, TuneParams
from medrobust.training.objectives.registry import OBJECTIVES
from medrobust.training.settings import Entry, Settings, content_hash, validation_steps


def resolve_settings(
    backbone: str, model: ModelParams, train: TrainParams, adv: AdvParams, tune: TuneParams,
    code: Mapping[str, str] | None = None,
) -> dict[str, Settings]:  # fmt: skip
    """The settings of the stages `tune`, `train` and `adv_train`.

    Args:
        backbone, model: a block under `models` and its name.
        train, adv, tune: blocks of params.yaml, without the backbone's overrides.
        code: `objectives/<name>` -> hash of its code, as the stage `code` writes it (None: no hashes).

    Raises:
        UserError: an override that does not fit, an unknown objective, one without what it needs, a step size with
            which an attack would not reach its radius, or a file of weights or folder of images that is not there.
    """
    own = override(train, model.train, f"models.{backbone}.train")
    own_adv = override(adv, model.adv, f"models.{backbone}.adv")
    clean, robust = find(own.objective, "train", attacks=False), find(own_adv.objective, "adv", attacks=True)
    if (own_adv.objective == "ssat") != bool(own_adv.unlabelled):
        found = f"{own_adv.unlabelled} with objective {own_adv.objective}"
        remedy = "ssat, and it alone, takes a share of the training patients (0.5) or a folder of images"
        raise UserError("params.yaml: adv.unlabelled", found, remedy)
    unsmoothed = [name for name, e in ((own.objective, clean), (own_adv.objective, robust)) if not e.smooths]
    if own.label_smoothing and unsmoothed:
        found = f"{own.label_smoothing:g} with objective {unsmoothed[0]}, which has no target to smooth"
        raise UserError("params.yaml: train.label_smoothing", found, "Set it to 0, or take another objective")
    _check_alpha(own_adv, robust, f"models.{backbone}.adv" if "alpha" in model.adv else "adv")
    _refuse_short(adv, adv.steps, "adv", "the PGD on which the vote is fitted")
    if tune.trials and tune.objective == "robust" and own_adv.objective == "ssat":
        remedy = "Say tune.objective: clean, trials: 0, or another adv.objective"
        raise UserError("params.yaml: tune.objective", "robust with ssat, but studies use labelled images", remedy)
    files, folders = _hashes(backbone, model, own_adv)
    network = model.model_dump(include=set(ModelParams.model_fields) - {"train", "adv", "detect", "explain"})
    base = {
        "backbone": backbone, "model": ModelParams.model_validate(network), "train": own,
        "objective": clean, "code": chosen_entries(code, "objectives", {own.objective}), "files": files,
    }  # fmt: skip
    both = {
        **base,
        "files": {**files, **folders},
        "adv": own_adv,
        "adv_objective": robust,
        "code": chosen_entries(code, "objectives", {own.objective, own_adv.objective}),
    }
    return {
        "tune": Settings.model_validate({**(both if tune.objective == "robust" else base), "tune": tune}),
        "train": Settings.model_validate(base),
        "adv_train": Settings.model_validate(both),
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


def _check_alpha(adv: AdvParams, objective: Entry, block: str) -> None:
    """Refuse a step size that is too small for the objective's own attack, or for that of robust validation.

    `curriculum` needs no check of its first epochs: a share of eps gets as large a share of the steps at least.
    """
    if objective.inside:
        steps = 1 if objective.single_step else adv.steps
        _refuse_short(adv, steps, block, f"the training attack of {adv.objective}")
    if validation_steps(adv, objective.single_step) == adv.steps:  # else it takes alpha: auto
        _refuse_short(adv, adv.steps, block, "the PGD of robust validation")


def _refuse_short(adv: AdvParams, steps: int, block: str, name: str) -> None:
    if adv.alpha == "auto" or reaches(adv.alpha, steps, adv.eps):
        return
    found = f"{name} reaches {adv.alpha:g} x {steps} = {adv.alpha * steps:g} of eps {adv.eps:g}"
    more = ", a larger alpha, or more steps" if steps > 1 else ", or a larger alpha"
    raise UserError(f"params.yaml: {block}.alpha", found, f"Say alpha: auto{more}")


def check_classes(settings: dict[str, Settings], split: Path) -> None:
    """Refuse an objective that the data have too few classes for.

    Args:
        settings: what `resolve_settings` gave.
        split: the split table.

    Raises:
        UserError: there is one.
    """
    with split.open(newline="", encoding="utf-8") as file:
        classes = {row["label"] for row in csv.DictReader(file)}
    for block, entry in (("train", settings["train"].objective), ("adv", settings["adv_train"].adv_objective)):
        if entry and len(classes) < entry.classes:
            found = f"wants {entry.classes} classes or more, {split} has {len(classes)}"
            raise UserError(f"params.yaml: {block}.objective", found, "Take another objective")


def _hashes(backbone: str, model: ModelParams, adv: AdvParams) -> tuple[dict[str, str], dict[str, str]]:
    """sha256 of the file of weights, and of the folder of unlabelled images, by path; {} where there is none."""
    files, folders = {}, {}
    if model.weights not in {"none", "pretrained"}:
        if not Path(model.weights).expanduser().is_file():
            remedy = "Give the path of a file, or weights: none | pretrained"
            raise UserError(f"params.yaml: models.{backbone}.weights", f"{model.weights} is no file", remedy)
        files[model.weights] = content_hash(model.weights)
    if isinstance(adv.unlabelled, str):
        if not Path(adv.unlabelled).expanduser().is_dir():
            remedy = "Give a folder with images, or a share of the training patients"
            raise UserError("params.yaml: adv.unlabelled", f"{adv.unlabelled} is no folder", remedy)
        folders[adv.unlabelled] = content_hash(adv.unlabelled)
    return files, folders

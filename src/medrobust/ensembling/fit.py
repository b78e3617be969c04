"""Fit an ensemble: from members and validation images to a combination."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from medrobust.attacks.methods.iterative import PGD
from medrobust.core.calibration import fit_temperature
from medrobust.core.params.ensemble import EnsembleParams
from medrobust.core.params.training import AdvParams
from medrobust.data.store import Subset
from medrobust.ensembling.member_predictions import MemberPredictions
from medrobust.ensembling.registry import Fit, load_method
from medrobust.models.combination import Combination
from medrobust.models.ensemble import EnsembleClassifier
from medrobust.models.predict import predict_all


def predict_validation(members: Sequence[nn.Module], val: Subset, adv: AdvParams, seed: int) -> MemberPredictions:
    """The predictions of members in eval mode on the validation images, clean and attacked.

    The attack is PGD as in adversarial training. It is made once, on the ensemble with equal weights; all members
    get the same attacked images.
    """
    device = next(members[0].parameters()).device
    alpha = None if adv.alpha == "auto" else adv.alpha
    attack = PGD(eps=adv.eps, alpha=alpha, steps=adv.steps, stop_when_fooled=False, keep="last")
    clean = predict_all(members, val, None, members[0], seed)
    ensemble = EnsembleClassifier(list(members), [1 / len(members)] * len(members)).to(device).eval()
    robust = predict_all(members, val, attack, ensemble, seed)
    return MemberPredictions(clean, robust, val.labels, val.patients, val.classes)


def fit_temperatures(predictions: MemberPredictions, params: EnsembleParams) -> list[float] | None:
    """The temperature of each member, with attacked images weighted by `robust_share`.

    None if `params.temperature` is false.
    """
    if not params.temperature:
        return None
    count = len(predictions.labels)
    labels = torch.from_numpy(np.tile(predictions.labels, 2))
    share = torch.tensor([1 - params.robust_share, params.robust_share]).repeat_interleave(count)
    both = torch.from_numpy(np.concatenate([predictions.clean, predictions.robust], axis=1))
    return [fit_temperature(part, labels, share) for part in both]


def tuned_method(name: str, predictions: MemberPredictions, params: EnsembleParams) -> Fit:
    """A method with hyper-parameters selected on some predictions; fits temperatures and combination to any.

    Raises:
        UserError: the predictions do not allow the method.
    """
    fit_scaled = load_method(name)(_scaled(predictions, params)[0], params)

    def fit(part: MemberPredictions) -> Combination:
        scaled, temperatures = _scaled(part, params)
        return replace(fit_scaled(scaled), temperatures=temperatures)

    return fit


def fit_combination(predictions: MemberPredictions, params: EnsembleParams) -> Combination:
    """The combination that `ensemble.method` fits to all validation images."""
    return tuned_method(params.method, predictions, params)(predictions)


def _scaled(
    predictions: MemberPredictions, params: EnsembleParams
) -> tuple[MemberPredictions, list[float] | None]:
    """The predictions at temperatures that are fitted to them, and the temperatures."""
    temperatures = fit_temperatures(predictions, params)
    if temperatures is None:
        return predictions, None
    scale = np.array(temperatures)[:, None, None]
    clean, robust = (
        torch.from_numpy(part / scale).log_softmax(-1).numpy() for part in (predictions.clean, predictions.robust)
    )
    return replace(predictions, clean=clean, robust=robust), temperatures


def fit_summary(
    names: list[str], combination: Combination, predictions: MemberPredictions, params: EnsembleParams
) -> dict[str, Any]:
    """What the card and the report contain about the fit: numbers, and one sentence under `fitted_on`."""
    active = [names[i] for i in combination.active(len(names))]
    images, patients = len(predictions.labels), len(np.unique(predictions.patients))
    text = f"{params.method} ensemble of {', '.join(active)}"
    text += f", fitted on {images} validation images of {patients} patients"
    if inactive := [name for name in names if name not in active]:
        text += f"; weight 0, not run: {', '.join(inactive)}"
    if len(active) == 1:
        text += "; an ensemble of one model is that model"
    if absent := predictions.absent():
        text += f"; no validation image of {', '.join(absent)}: nothing was learned about it"
    return {
        "method": params.method,
        "regime": params.regime,
        "members": names,
        "objective": params.objective if params.method == "convex" else "weighted",
        "robust_share": params.robust_share,
        "val_n": images,
        "val_patients": patients,
        "absent_from_val": absent,
        "fitted_on": text,
    }


def parameters_by_member(names: list[str], combination: Combination) -> dict[str, dict[str, float]]:
    """`weights` and `temperatures` by member name, without those that the combination lacks."""
    parts = {"weights": combination.weights, "temperatures": combination.temperatures}
    return {key: dict(zip(names, part, strict=True)) for key, part in parts.items() if part is not None}

"""From members and validation images to a rule."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from medrobust.core.calibration import fit_temperature
from medrobust.core.params.ensemble import EnsembleParams
from medrobust.core.params.training import AdvParams
from medrobust.data.store import Subset
from medrobust.ensembling.registry import Fit, method
from medrobust.ensembling.sample import Sample
from medrobust.models.ensemble import EnsembleClassifier
from medrobust.models.predict import predict_all
from medrobust.models.vote import Rule
from medrobust.training.objectives.inner import training_attack


def ask(members: Sequence[nn.Module], val: Subset, adv: AdvParams, seed: int) -> Sample:
    """What members say of the validation images, clean and attacked.

    The attacked images are made on the equal vote of the members, one image for all of them.

    Args:
        members: classifiers in eval mode.
        val: validation images.
        adv: radius and steps of the attack.
        seed: of the attack's random starts.
    """
    device = next(members[0].parameters()).device
    clean = predict_all(members, val, None, members[0], seed)
    vote = EnsembleClassifier(list(members), [1 / len(members)] * len(members)).to(device).eval()
    robust = predict_all(members, val, training_attack(adv), vote, seed)
    return Sample(clean, robust, val.labels, val.patients, val.classes)


def temperatures(sample: Sample, params: EnsembleParams) -> list[float] | None:
    """Each member's temperature, clean and attacked images weighed as the vote weighs them; None if not wanted."""
    if not params.temperature:
        return None
    labels = torch.from_numpy(np.tile(sample.labels, 2))
    share = torch.tensor([1 - params.robust_share, params.robust_share]).repeat_interleave(len(sample.labels))
    both = torch.from_numpy(np.concatenate([sample.clean, sample.robust], axis=1))
    return [fit_temperature(part, labels, share) for part in both]


def fitter(name: str, sample: Sample, params: EnsembleParams) -> Fit:
    """A method with its choices made on a sample: what it gives fits temperatures and rule to any sample.

    Raises:
        UserError: the sample does not hold what the method needs.
    """
    chosen = method(name)(_tempered(sample, params)[0], params)

    def fit(part: Sample) -> Rule:
        cooled, found = _tempered(part, params)
        return replace(chosen(cooled), temperatures=found)

    return fit


def fit_rule(sample: Sample, params: EnsembleParams) -> Rule:
    """The rule of `ensemble.method` on all validation images."""
    return fitter(params.method, sample, params)(sample)


def answers(rule: Rule, votes: np.ndarray) -> np.ndarray:
    """The vote's log-probabilities, float64 n×K, of the members' M×n×K."""
    found: np.ndarray = rule.module().double()(torch.from_numpy(votes)).numpy()
    return found


def _tempered(sample: Sample, params: EnsembleParams) -> tuple[Sample, list[float] | None]:
    found = temperatures(sample, params)
    if found is None:
        return sample, None
    scale = np.array(found)[:, None, None]
    clean, robust = (
        torch.from_numpy(part / scale).log_softmax(-1).numpy() for part in (sample.clean, sample.robust)
    )
    return replace(sample, clean=clean, robust=robust), found


def facts_of(names: list[str], rule: Rule, sample: Sample, params: EnsembleParams) -> dict[str, Any]:
    """What the card and the report say of how a vote came to be, in numbers and one sentence."""
    voters = [names[place] for place in rule.voters(len(names))]
    images, patients = len(sample.labels), len(np.unique(sample.patients))
    said = f"{params.method} vote of {', '.join(voters)}, from {images} validation images of {patients} patients"
    if left := [name for name in names if name not in voters]:
        said += f"; no weight for {', '.join(left)}: not run"
    if len(voters) == 1:
        said += "; a vote of one model is that model"
    if absent := sample.absent():
        said += f"; no validation image of {', '.join(absent)}: nothing was learned of it"
    return {
        "method": params.method,
        "regime": params.regime,
        "members": names,
        "objective": params.objective if params.method == "convex" else "weighted",
        "robust_share": params.robust_share,
        "val_n": images,
        "val_patients": patients,
        "absent_from_val": absent,
        "fitted_on": said,
    }


def named(names: list[str], rule: Rule) -> dict[str, dict[str, float]]:
    """`weights` and `temperatures` by member, those that the rule has."""
    parts = {"weights": rule.weights, "temperatures": rule.temperatures}
    return {key: dict(zip(names, part, strict=True)) for key, part in parts.items() if part is not None}

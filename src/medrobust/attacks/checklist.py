"""Checks that ask whether a robust accuracy can be believed; after Carlini et al. 2019 and Athalye et al. 2018.

Each check gives a finding: its name, `pass`, `warn` or `fail`, and what was measured. A failed check makes the
number invalid, a warning makes it suspect; the best verdict is "no problem found", never "robust".
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medrobust.attacks.base import frozen, margin, project
from medrobust.attacks.pgd import FGSM
from medrobust.attacks.random import uniform
from medrobust.attacks.walk import loss_gradient
from medrobust.data.store import Subset

Outcome = Literal["pass", "warn", "fail"]
#: Images that the checks which need the model look at.
SAMPLE = 64


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    outcome: Outcome
    measured: str


def verdict(findings: list[Finding]) -> str:
    """`invalid`, `suspect` or `no problem found`."""
    outcomes = {finding.outcome for finding in findings}
    return "invalid" if "fail" in outcomes else "suspect" if "warn" in outcomes else "no problem found"


def run_checklist(
    model: nn.Module,
    subset: Subset,
    records: pd.DataFrame,
    suite: dict[str, Any],
    *,
    half_width: float,
    seed: int,
) -> list[Finding]:
    """All checks of one evaluation.

    Args:
        model: the attacked model.
        subset: the attacked images.
        records: what the engine gave.
        suite: the resolved suite.
        half_width: half the widest confidence interval of a robust accuracy.
        seed: of the noise control.
    """
    rows = np.arange(len(subset))[:: max(len(subset) // SAMPLE, 1)][:SAMPLE]
    device = next(model.parameters()).device
    images, labels = subset.batch(rows).to(device), subset.targets(rows).to(device)
    with frozen(model):
        checks = [_logits(model, images), _deterministic(model, images), _gradient(model, images, labels)]
        last = records[records["eps"] == max(suite["eps"])].reset_index(drop=True)
        checks += [
            _one_step(model, images, labels, last, rows, max(suite["eps"])),
            _noise(model, images, labels, last, rows, max(suite["eps"]), seed),
        ]
    return [*checks, _collapse(records), _displacement(records), _sample(subset, half_width), _weak(suite)]


def _logits(model: nn.Module, images: Tensor) -> Finding:
    with torch.no_grad():
        logits = model(images)
    sums = logits.sum(1)
    probable = bool((logits >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-3))
    return Finding("logits", "fail" if probable else "pass", "outputs are probabilities" if probable else "logits")


def _deterministic(model: nn.Module, images: Tensor) -> Finding:
    with torch.no_grad():
        first = model(images)
        gap = float((model(images) - first).abs().max() / first.abs().max().clamp_min(1e-9))
    return Finding("deterministic", "fail" if gap > 1e-4 else "pass", f"relative difference {gap:.1e}")


def _gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Finding:
    _, gradient = loss_gradient(model, images, labels, "margin")
    if not torch.isfinite(gradient).all():
        return Finding("gradient", "fail", "NaN or infinite gradients")
    zero = int((gradient.abs().flatten(1).sum(1) == 0).sum())
    return Finding("gradient", "fail" if zero else "pass", f"{zero} of {len(images)} images without a gradient")


def _one_step(
    model: nn.Module, images: Tensor, labels: Tensor, last: pd.DataFrame, rows: np.ndarray, eps: float
) -> Finding:
    """FGSM must not fool what the suite did not: a stronger attack that does worse is no attack."""
    adv = FGSM(eps=eps)(model, images, labels, seeds=torch.zeros(len(images), dtype=torch.int64))
    return _missed(model, adv, labels, last, rows, "beats one step", (0.005, 0.02))


def _noise(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    last: pd.DataFrame,
    rows: np.ndarray,
    eps: float,
    seed: int,
) -> Finding:
    seeds = torch.arange(len(images), device=images.device) + (seed << 32)
    noise = 2 * uniform(seeds, 0, tuple(images.shape[1:])) - 1
    return _missed(
        model, project(images + eps * noise.sign(), images, eps), labels, last, rows, "beats noise", (0, 0.02)
    )


def _missed(
    model: nn.Module, adv: Tensor, labels: Tensor, last: pd.DataFrame, rows: np.ndarray, name: str,
    limits: tuple[float, float],
) -> Finding:  # fmt: skip
    with torch.no_grad():
        wrong = (margin(model(adv), labels) > 0).cpu().numpy()
    share = float((wrong & ~last["fooled"].to_numpy()[rows]).mean())
    outcome: Outcome = "fail" if share > limits[1] else "warn" if share > limits[0] else "pass"
    return Finding(name, outcome, f"{share:.1%} of images fooled by it alone")


def _collapse(records: pd.DataFrame) -> Finding:
    share = float(records.drop_duplicates("id")["clean_pred"].value_counts(normalize=True).iloc[0])
    return Finding("not constant", "fail" if share > 0.95 else "pass", f"{share:.1%} of answers are one class")


def _displacement(records: pd.DataFrame) -> Finding:
    """Survivors must stand near the border of the ball, else the attack did not use its budget."""
    alive = records[~records["fooled"]]
    if not len(alive):
        return Finding("budget used", "pass", "no image survived")
    used = float((alive["distance"] / alive["eps"]).median())
    outcome: Outcome = "fail" if used < 0.5 else "warn" if used < 0.9 else "pass"
    return Finding("budget used", outcome, f"median {used:.0%} of eps")


def _sample(subset: Subset, half_width: float) -> Finding:
    patients = [len(np.unique(subset.patients[subset.labels == k])) for k in range(len(subset.classes))]
    few = min(patients) < 10 or half_width > 0.05
    measured = f"{len(subset)} images, fewest patients of a class {min(patients)}, half-width {half_width:.3f}"
    return Finding("sample size", "warn" if few else "pass", measured)


def _weak(suite: dict[str, Any]) -> Finding:
    weak = [entry["name"] for entry in suite["attacks"] if entry["hyperparameters"].get("allow_weak")]
    return Finding(
        "reach",
        "fail" if weak else "pass",
        f"allow_weak: {', '.join(weak)}" if weak else "alpha x steps >= eps",
    )

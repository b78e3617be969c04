"""Ask every check about a model and its evaluations, and write what they found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from medrobust.attacks.base import Norm
from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.engine.evaluate import build_attack
from medrobust.attacks.engine.suite import read_suite
from medrobust.checklist.base import (
    Challenge,
    Finding,
    ModelEvidence,
    Sample,
    SuiteEvidence,
    judge,
    verdict,
)
from medrobust.checklist.challenge import run_challenge, run_curve
from medrobust.checklist.registry import CHECKS
from medrobust.core.errors import UserError
from medrobust.core.params.attacks import AttacksParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import read_table, write_metrics
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset

#: Fewest steps of the challengers (Madry et al. 2018 take 7 to 20): a suite of fewer is judged by these.
STEPS = 10


@dataclass(frozen=True, kw_only=True)
class CheckedModel:
    """A model, and what was said of it.

    Attributes:
        model: images in [0, 1] to logits, on the device to use.
        subset: the attacked images.
        suites: suite -> resolved suite.
        attempts: suite -> the engine's records, one row an image and attempt.
        adversarial: whether the model was trained on attacked images.
        siblings: other models of the run for the same classes, whose adversarial images are tried on this one.
        bit_depth: of the stored images.
    """

    model: nn.Module
    subset: Subset
    suites: Mapping[str, dict[str, Any]]
    attempts: Mapping[str, pd.DataFrame]
    adversarial: bool
    siblings: Mapping[str, nn.Module] = field(default_factory=dict)
    bit_depth: int = 8


def read_evaluations(
    names: list[str], suites: Path, records: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, pd.DataFrame]]:
    """Suites and tables by the suite's name, from `<suites>/<name>/` and `<records>/<name>.parquet`.

    Raises:
        UserError: a file is missing.
    """
    resolved = {name: read_suite(suites / name) for name in names}
    return resolved, {name: read_table(records / f"{name}.parquet") for name in names}


def check_model(
    subject: CheckedModel, *, eps: float, params: AttacksParams, report: ReportParams, seed: int
) -> dict[str, Any]:
    """Ask all checks; what `metrics/checks/*.json` holds.

    Args:
        subject: the model and its evaluations.
        eps: the Linf radius of the run; a suite is checked at the radius of its grid that is nearest, an L2 suite
            at the middle one of its grid.
        params: how many images and queries the checks may use.
        report: of the intervals.
        seed: of the samples and the attacks.

    Returns:
        `verdict`, `images`, `model` (check -> outcome and number), `suites` (suite -> `verdict`, `eps`, `checks`),
        `means` and `remedies` (check that did not pass -> what that means, what to do).
    """
    records = {name: worst_case(subject.attempts[name], suite["eps"]) for name, suite in subject.suites.items()}
    radii = {name: _radius(suite, eps) for name, suite in subject.suites.items()}
    about = _asked("model", _model_evidence(subject, next(iter(records.values())), eps, params, seed))
    challenges = _challenges(subject, records, radii, params, seed)
    suites, said = {}, list(about)
    for name, suite in subject.suites.items():
        challenge = challenges.get((suite["norm"], radii[name]))
        evidence = SuiteEvidence(
            suite, subject.attempts[name], records[name], subject.subset, radii[name], subject.adversarial,
            challenge, report,
        )  # fmt: skip
        findings = _asked("suite", evidence)
        said += findings
        worst = verdict(finding.outcome for finding in (*about, *findings))
        suites[name] = {"verdict": worst, "eps": radii[name], "checks": _lines(findings)}
    doubtful = [finding.check for finding in said if finding.outcome in ("warn", "fail")]
    return {
        "verdict": verdict(finding.outcome for finding in said),
        "images": min(params.check_images, len(subject.subset)),
        "model": _lines(about),
        "suites": suites,
        "means": {check.name: check.means for check in doubtful},
        "remedies": {check.name: check.remedy for check in doubtful},
    }


def conclude(found: Mapping[Path, dict[str, Any]], on_invalid: str) -> None:
    """Write what was found of each model; then end with an error if one is invalid and that shall not be.

    Raises:
        UserError: a verdict is `invalid` and `on_invalid` is `fail`.
    """
    for path, record in found.items():
        write_metrics(path, record, {"verdict": record.get("verdict", "not fitted")})
    failed = {path.stem: record for path, record in found.items() if record.get("verdict") == "invalid"}
    if on_invalid == "fail" and failed:
        parts = [f"{name}: {', '.join(_failed(record))}" for name, record in failed.items()]
        remedy = "Mend the model or strengthen the suite, or set attacks.on_invalid: warn to see the report"
        raise UserError("the checklist failed", "; ".join(parts), remedy)


def _failed(record: dict[str, Any]) -> list[str]:
    named = {"model": record["model"], **{name: suite["checks"] for name, suite in record["suites"].items()}}
    return [
        f"{check} of {name} ({line.removeprefix('fail: ')})"
        for name, checks in named.items()
        for check, line in checks.items()
        if line.startswith("fail")
    ]


def _lines(findings: list[Finding]) -> dict[str, str]:
    return {finding.check.name: f"{finding.outcome}: {finding.measured}" for finding in findings}


def _asked(kind: str, evidence: ModelEvidence | SuiteEvidence) -> list[Finding]:
    return [judge(check, evidence) for check in CHECKS if check.of == kind]


def _sample(subject: CheckedModel, among: np.ndarray, count: int, seed: int) -> Sample:
    """Some of the images at the positions `among`, drawn by seed and in the order of the subset."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(among, min(count, len(among)), replace=False))
    device = next(subject.model.parameters()).device
    subset = subject.subset
    seeds = image_seeds(subset.ids[rows], seed)
    return Sample(rows, subset.batch(rows).to(device), subset.targets(rows).to(device), seeds.to(device))


def _model_evidence(
    subject: CheckedModel, records: pd.DataFrame, eps: float, params: AttacksParams, seed: int
) -> ModelEvidence:
    """A sample of all images, the clean answers, and the curve of a sample that is answered rightly."""
    table = records.drop_duplicates("id").set_index("id").loc[subject.subset.ids]
    preds, labels = table["clean_pred"].to_numpy(), table["label"].to_numpy()
    right = np.flatnonzero(preds == labels)
    curve = None
    if len(right):
        sample = _sample(subject, right, params.check_images, seed)
        levels = 2**subject.bit_depth - 1
        curve = run_curve(subject.model, sample, eps, steps=_steps(subject), levels=levels)
    every = _sample(subject, np.arange(len(subject.subset)), params.check_images, seed)
    return ModelEvidence(subject.model, every, len(subject.subset.classes), preds, labels, curve)


def _radius(suite: Mapping[str, Any], eps: float) -> float:
    """The radius at which a suite is checked: nearest to `eps`; of an L2 suite the middle one."""
    radii: list[float] = suite["eps"]
    return min(radii, key=lambda r: abs(r - eps)) if suite["norm"] == "Linf" else radii[len(radii) // 2]


def _challenges(
    subject: CheckedModel, records: Mapping[str, pd.DataFrame], radii: Mapping[str, float], params: AttacksParams,
    seed: int,
) -> dict[tuple[Norm, float], Challenge]:  # fmt: skip
    """One challenge a ball (norm and radius), on images that stand in at least one suite there."""
    standing: dict[tuple[Norm, float], np.ndarray] = {}
    for name, suite in subject.suites.items():
        table, ball = records[name], (suite["norm"], radii[name])
        fooled = table[table["eps"] == radii[name]].set_index("id").loc[subject.subset.ids, "fooled"]
        before = standing.get(ball, np.zeros(len(fooled), dtype=bool))
        standing[ball] = before | ~fooled.to_numpy()
    return {
        (norm, eps): run_challenge(
            subject.model, _sample(subject, np.flatnonzero(stood), params.check_images, seed), eps, norm=norm,
            steps=_steps(subject), queries=params.check_queries, siblings=subject.siblings,
        )
        for (norm, eps), stood in standing.items()
        if stood.any()
    }  # fmt: skip


def _steps(subject: CheckedModel) -> int:
    """The most steps that an attack of the suites takes inside its ball; no fewer than the textbook's."""
    attacks = [
        build_attack(entry, suite["eps"][-1], suite["norm"])
        for suite in subject.suites.values()
        for entry in suite["attacks"]
    ]
    return max([STEPS, *(int(getattr(attack, "steps", 0)) for attack in attacks if attack.respects_ball)])

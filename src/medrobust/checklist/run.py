"""Run all checks on a model and its evaluations, and write the records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.engine.evaluate import build_attack
from medrobust.attacks.engine.suite import read_suite
from medrobust.attacks.projection import Norm
from medrobust.attacks.tolerance import TOLERANCE
from medrobust.checklist.base import (
    Challenge,
    CheckResult,
    ImageSample,
    ModelEvidence,
    Paths,
    SuiteEvidence,
    run_check,
    verdict,
)
from medrobust.checklist.challenge import run_challenge, run_curve
from medrobust.checklist.paths import follow_gradients
from medrobust.checklist.thresholds import CHECKS
from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON, REMEDY, check_made_on, suite_hash
from medrobust.core.params.attacks import AttacksParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import read_table, write_metrics
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset
from medrobust.models.predict import log_probabilities

#: Fewest steps of the challengers, also for suites with fewer steps (Madry et al. 2018 use 7 to 20).
MIN_STEPS = 10
#: Margin, in logits, below which another device or batch may change a prediction.
TIE = 1e-3
#: Images of the paths, as a multiple of `attacks.check_images`.
PATH_IMAGES = 3
Ball = tuple[Norm, float]


@dataclass(frozen=True, kw_only=True)
class CheckedModel:
    """A model (images in [0, 1] to logits, on the device to use) and its evaluations.

    `suites` has resolved suites and `attempts` the attack records (one row per image and attempt), by suite.
    `adversarial`: whether the model was trained on attacked images. Images made on `siblings`, other models of the
    run for the same classes, are tried on this one. `trainings` as in `ModelEvidence`.
    """

    model: nn.Module
    subset: Subset
    suites: Mapping[str, dict[str, Any]]
    attempts: Mapping[str, pd.DataFrame]
    adversarial: bool
    siblings: Mapping[str, nn.Module] = field(default_factory=dict)
    bit_depth: int = 8
    trainings: Sequence[Mapping[str, Any]] = ()


def read_evaluations(
    names: list[str], suites: Path, records: Path, made_on: Mapping[str, str]
) -> tuple[dict[str, dict[str, Any]], dict[str, pd.DataFrame]]:
    """Resolved suites and attack records by name, from `<suites>/<name>/` and `<records>/<name>.parquet`.

    Raises:
        UserError: a file is missing, or its records were not made on the hashes in `made_on` and on this suite.
    """
    resolved = {name: read_suite(suites / name) for name in names}
    tables = {name: read_table(records / f"{name}.parquet") for name in names}
    for name, table in tables.items():
        expected = {**made_on, "suite": suite_hash(resolved[name])}
        check_made_on(records / f"{name}.parquet", table.attrs.get(MADE_ON), expected)
    return resolved, tables


def check_predictions(checked: CheckedModel, records: Path) -> None:
    """Compare the clean predictions in the attack records of a folder with those of the model.

    Raises:
        UserError: the records are of other images, or a recorded prediction with a margin above `TIE` differs from
            the model's.
    """
    subset = checked.subset
    preds = log_probabilities(checked.model, subset).argmax(1)
    for name, attempts in checked.attempts.items():
        where, clean = str(records / f"{name}.parquet"), attempts[attempts["attack"] == "natural"]
        if clean["id"].tolist() != subset.ids.tolist():
            raise UserError(where, "its images are not the test images", REMEDY)
        wrong = (clean["clean_pred"].to_numpy() != preds) & (clean["margin"].abs().to_numpy() > TIE)
        if wrong.any():
            raise UserError(where, f"{wrong.sum()} of {len(preds)} clean predictions are not the model's", REMEDY)


def check_model(
    checked: CheckedModel, *, eps: float, params: AttacksParams, report: ReportParams, seed: int
) -> dict[str, Any]:
    """Run all checks; the result is the content of `metrics/checks/*.json`.

    `eps` is the Linf radius of the run. A suite is checked at the nearest of its radii, one of another norm at the
    middle one.

    Returns:
        `verdict`, `images`, `model` (check -> outcome and what was measured), `suites` (suite -> `verdict`, `eps`,
        `checks`), `means` and `remedies` (check that did not pass -> what that means, what to do).
    """
    records = {name: worst_case(checked.attempts[name], suite["eps"]) for name, suite in checked.suites.items()}
    radii = {name: _radius(suite, eps) for name, suite in checked.suites.items()}
    of_model = _run_checks("model", _model_evidence(checked, next(iter(records.values())), eps, params, seed))
    robust = _robust_images(checked, records, radii)
    challenges, paths = _challenges(checked, robust, params, seed), _paths(checked, robust, params, seed)
    suites, results = {}, list(of_model)
    for name, suite in checked.suites.items():
        challenge = challenges.get((suite["norm"], radii[name]))
        evidence = SuiteEvidence(
            suite, checked.attempts[name], records[name], checked.subset, radii[name], checked.adversarial,
            challenge, report, paths.get((suite["norm"], radii[name])),
            _fooled_by_others(checked, records, name, radii[name]),
        )  # fmt: skip
        of_suite = _run_checks("suite", evidence)
        results += of_suite
        worst = verdict(result.outcome for result in (*of_model, *of_suite))
        suites[name] = {"verdict": worst, "eps": radii[name], "checks": _lines(of_suite)}
    not_passed = [result.check for result in results if result.outcome in ("warn", "fail")]
    return {
        "verdict": verdict(result.outcome for result in results),
        "images": min(params.check_images, len(checked.subset)),
        "model": _lines(of_model),
        "suites": suites,
        "means": {check.name: check.means for check in not_passed},
        "remedies": {check.name: check.remedy for check in not_passed},
    }


def write_records(records: Mapping[Path, dict[str, Any]], on_invalid: str) -> None:
    """Write the record of each model to its file: the result of `check_model`, or `not_fitted` with the reason.

    Raises:
        UserError: a verdict is `invalid` and `on_invalid` is `fail`; all records are written first.
    """
    for path, record in records.items():
        write_metrics(path, record, {"verdict": record.get("verdict", "not fitted")})
    failed = {path.stem: record for path, record in records.items() if record.get("verdict") == "invalid"}
    if on_invalid == "fail" and failed:
        parts = [f"{name}: {', '.join(_failed(record))}" for name, record in failed.items()]
        remedy = "Fix the model or strengthen the suite, or set attacks.on_invalid: warn to see the report"
        raise UserError("the checklist failed", "; ".join(parts), remedy)


def _failed(record: dict[str, Any]) -> list[str]:
    parts = {"model": record["model"], **{name: suite["checks"] for name, suite in record["suites"].items()}}
    return [
        f"{check} of {name} ({line.removeprefix('fail: ')})"
        for name, checks in parts.items()
        for check, line in checks.items()
        if line.startswith("fail")
    ]


def _lines(results: list[CheckResult]) -> dict[str, str]:
    return {result.check.name: f"{result.outcome}: {result.text}" for result in results}


def _run_checks(of: str, evidence: ModelEvidence | SuiteEvidence) -> list[CheckResult]:
    return [run_check(check, evidence) for check in CHECKS if check.of == of]


def _sample(checked: CheckedModel, groups: list[np.ndarray], count: int, seed: int) -> ImageSample:
    """At most `count` images, drawn by seed from the first group of positions, then from the next."""
    rng = np.random.default_rng(seed)
    drawn: list[np.ndarray] = []
    for positions in groups:
        free = count - sum(map(len, drawn))
        drawn.append(rng.choice(positions, min(free, len(positions)), replace=False))
    rows = np.sort(np.concatenate(drawn))
    device = next(checked.model.parameters()).device
    subset = checked.subset
    seeds = image_seeds(subset.ids[rows], seed)
    return ImageSample(rows, subset.batch(rows).to(device), subset.targets(rows).to(device), seeds.to(device))


def _model_evidence(
    checked: CheckedModel, records: pd.DataFrame, eps: float, params: AttacksParams, seed: int
) -> ModelEvidence:
    table = records.drop_duplicates("id").set_index("id").loc[checked.subset.ids]
    preds, labels = table["clean_pred"].to_numpy(), table["label"].to_numpy()
    correct = np.flatnonzero(preds == labels)
    curve = None
    if len(correct):
        sample = _sample(checked, [correct], params.check_images, seed)
        levels = 2**checked.bit_depth - 1
        curve = run_curve(checked.model, sample, eps, steps=_steps(checked), levels=levels)
    of_all = _sample(checked, [np.arange(len(checked.subset))], params.check_images, seed)
    return ModelEvidence(
        checked.model, of_all, len(checked.subset.classes), preds, labels, curve, checked.trainings
    )


def _radius(suite: Mapping[str, Any], eps: float) -> float:
    """The radius at which a suite is checked: the one nearest to `eps`, or the middle one in another norm."""
    radii: list[float] = suite["eps"]
    return min(radii, key=lambda r: abs(r - eps)) if suite["norm"] == "Linf" else radii[len(radii) // 2]


def _fooled_by_others(
    checked: CheckedModel, records: Mapping[str, pd.DataFrame], name: str, eps: float
) -> np.ndarray:
    """Which images each other suite of the same norm fooled at `eps` or a smaller radius, bool m×n."""
    norm = checked.suites[name]["norm"]
    others = [records[other] for other, suite in checked.suites.items() if other != name and suite["norm"] == norm]
    tables = [table[table["eps"] <= eps * (1 + TOLERANCE)] for table in others]
    masks = [table.groupby("id")["fooled"].any().loc[checked.subset.ids] for table in tables if len(table)]
    return np.array(masks, dtype=bool).reshape(-1, len(checked.subset))


def _robust_images(
    checked: CheckedModel, records: Mapping[str, pd.DataFrame], radii: Mapping[str, float]
) -> dict[Ball, list[np.ndarray]]:
    """By ball (norm and radius), positions of the images that no suite fooled there, then those that some did not.

    Images that one suite missed and another fooled are reported by the check `other suites`. So challengers try
    those first that no suite fooled. Patches have no ball.
    """
    fooled: dict[Ball, list[np.ndarray]] = {}
    for name, suite in checked.suites.items():
        if suite["norm"] == "patch":
            continue
        table = records[name]
        of_suite = table[table["eps"] == radii[name]].set_index("id").loc[checked.subset.ids, "fooled"]
        fooled.setdefault((suite["norm"], radii[name]), []).append(of_suite.to_numpy())
    counts = {ball: (np.sum(masks, axis=0), len(masks)) for ball, masks in fooled.items()}
    parts = {
        ball: [np.flatnonzero(count == 0), np.flatnonzero((count > 0) & (count < suites))]
        for ball, (count, suites) in counts.items()
    }
    return {ball: part for ball, part in parts.items() if any(map(len, part))}


def _challenges(
    checked: CheckedModel, robust: Mapping[Ball, list[np.ndarray]], params: AttacksParams, seed: int
) -> dict[Ball, Challenge]:
    """One challenge per ball."""
    return {
        (norm, eps): run_challenge(
            checked.model, _sample(checked, positions, params.check_images, seed), eps, norm=norm,
            steps=_steps(checked), queries=params.check_queries, siblings=checked.siblings,
        )
        for (norm, eps), positions in robust.items()
    }  # fmt: skip


def _paths(
    checked: CheckedModel, robust: Mapping[Ball, list[np.ndarray]], params: AttacksParams, seed: int
) -> dict[Ball, Paths]:
    """Paths in each ball. They are cheap, and so have more images."""
    count = PATH_IMAGES * params.check_images
    return {
        (norm, eps): follow_gradients(checked.model, _sample(checked, positions, count, seed), eps, norm)
        for (norm, eps), positions in robust.items()
    }


def _steps(checked: CheckedModel) -> int:
    """The most steps of any attack of the suites that respects its ball, at least `MIN_STEPS`."""
    attacks = [
        build_attack(entry, suite["eps"][-1], suite["norm"])
        for suite in checked.suites.values()
        for entry in suite["attacks"]
    ]
    return max(
        [
            MIN_STEPS,
            *(
                int(getattr(attack, "steps", 0))
                for attack in attacks
                if attack.respects_ball and attack.norm != "patch"
            ),
        ]
    )

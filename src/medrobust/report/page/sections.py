"""The sections of the report, in the order in which a reader needs them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from medrobust.core.intervals import FEW_PATIENTS
from medrobust.report.charts.chart import Chart
from medrobust.report.charts.confusion import Matrix, matrices
from medrobust.report.charts.detection import detection_charts
from medrobust.report.charts.robustness import robust_curve
from medrobust.report.charts.training import training_charts
from medrobust.report.page.verdicts import CHECKLIST
from medrobust.report.run import Run
from medrobust.report.tables.accuracy import attack_table, backbone_table, clean_table, short_table
from medrobust.report.tables.calibration import calibration_table, recall_table
from medrobust.report.tables.checklist import checks_table, verdicts_table
from medrobust.report.tables.cost import cost_table
from medrobust.report.tables.data import audit_table, data_text, split_table
from medrobust.report.tables.detection import detection_tables, detection_text
from medrobust.report.tables.ensemble import ensemble_text, methods_table, weights_table
from medrobust.report.tables.ensemble_attacks import attacked_methods_table
from medrobust.report.tables.explanations import (
    drift_table,
    explanation_example,
    explanation_folds,
    explanation_text,
)
from medrobust.report.tables.table import Table, zero_width_warning
from medrobust.report.tables.targeted import targeted_tables
from medrobust.report.tables.transfer import Grid, transfer_grids, transfer_tables
from medrobust.report.tables.tuning import trial_tables, tuning_table


@dataclass(frozen=True)
class ReportSettings:
    """The values of params.yaml that the report needs.

    Attributes:
        strategy: of the split.
        norms, attacks: suite -> its norm, and its attacks as text.
    """

    title: str
    seed: int
    strategy: str
    confidence: float
    norms: Mapping[str, str]
    attacks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A part of the page; `pictures` names figures that are always shown, `folds` those that open on demand."""

    name: str
    title: str
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    matrices: list[Matrix] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    folds: dict[str, list[str]] = field(default_factory=dict)


def sections(run: Run, settings: ReportSettings) -> list[Section]:
    """Every section that has content."""
    confidence = settings.confidence
    curves = [robust_curve(run, suite, settings.norms[suite]) for suite in run.suites]
    found = [
        Section("glance", "At a glance", [short_table(run)], text=_how_to_read(run, confidence)),
        Section(
            "data", "Data", [split_table(run), audit_table(run)], pictures=["classes", "pairs"],
            text=data_text(run),
        ),
        Section("tuning", "Tuning", [tuning_table(run), *trial_tables(run)]),
        Section("training", "Training", charts=training_charts(run)),
        Section("clean", "Clean results", [clean_table(run, confidence)]),
        Section(
            "attacks", "Under attack", [
                *(attack_table(run, suite, confidence) for suite in run.suites),
                *targeted_tables(run, confidence),
                recall_table(run, confidence), calibration_table(run, confidence),
            ],
            [curve for curve in curves if curve], text=_suites_text(settings),
        ),
        Section(
            "backbones", "All numbers, by backbone",
            [backbone_table(run, model, confidence) for model in (*run.backbones, "ensemble")],
        ),
        Section("checks", CHECKLIST, [verdicts_table(run), checks_table(run)]),
        Section(
            "detection", "Detection", detection_tables(run, confidence), detection_charts(run),
            text=detection_text(run),
        ),
        Section(
            "explanations", "Explanations", [drift_table(run, confidence)], pictures=explanation_example(run),
            text=explanation_text(run), folds=explanation_folds(run),
        ),
        Section("confusion", "Confusion matrices, clean test images", matrices=matrices(run)),
        Section(
            "ensemble", "Ensemble", [
                weights_table(run), methods_table(run, confidence), attacked_methods_table(run, confidence),
                *transfer_tables(run, confidence),
            ],
            grids=transfer_grids(run), text=ensemble_text(run),
        ),
        Section("cost", "Cost", [cost_table(run)]),
        Section("reproduce", "How to reproduce", [_origin_table(run)], text=_reproduce_text(run, settings)),
    ]  # fmt: skip
    return [s for s in found if any(t.rows for t in s.tables) or s.charts or s.matrices or s.name == "reproduce"]


def _reproduce_text(run: Run, settings: ReportSettings) -> list[str]:
    """Hashes, commands, seed and versions. No time and no commit, so that the same run gives the same page."""
    trained: dict[str, set[str]] = {}
    for card in run.training.cards.values():
        for name, found in card.get("versions", {}).items():
            trained.setdefault(name, set()).add(found)
    versions = ", ".join(f"{name} {'/'.join(sorted(found))}" for name, found in trained.items())
    compared = "Every file behind this page was compared with dvc.lock: all belong to one run."
    return [
        *([compared] if run.provenance and not run.foreign else []),
        *_run_hashes(run),
        "In a clone: run make setup, then dvc pull (if the results are stored) or dvc repro (from the data on).",
        f"Seed {settings.seed}; every other value is in params.yaml.",
        f"Trained with {versions}." if versions else "No checkpoint with its versions was found.",
        "The weights are in models/<model>/<clean or adv>, each with a model card (README.md).",
        f"Report by medrobust {version('medrobust')}.",
    ]


def _run_hashes(run: Run) -> list[str]:
    """The hashes of the code and of the prepared data, and the command that finds the commits of this code."""
    if run.code is None:
        code = "The hash of the code is unknown: there is no folder data/code."
    else:
        code = (
            f"Code: md5 {run.code} (of the folder data/code in dvc.lock). Commits with this code: "
            f"git log --oneline -S{run.code} -- dvc.lock"
        )
    return [code, f"Prepared data: sha256 {run.header.get('sha256', 'unknown')}."]


def _origin_table(run: Run) -> Table:
    """The hash of each result in dvc.lock."""
    names = ["data/prepared", "data/split.csv"]
    names += [f"data/checkpoints/{backbone}/{regime}" for backbone, regime in run.training.cards]
    names += ["data/ensemble"]
    hashes = [(name, run.provenance.md5(name)) for name in names] if run.provenance else []
    note = "Commits whose dvc.lock holds a result: git log --oneline -S<md5> -- dvc.lock"
    return Table(
        "Hashes of the results in dvc.lock", ["result", "md5"], [[n, md5] for n, md5 in hashes if md5], note
    )


def _suites_text(settings: ReportSettings) -> list[str]:
    """The norm and the attacks of every suite."""
    return [
        f"Suite {name}: norm {settings.norms[name]}; attacks: {attacks}."
        for name, attacks in settings.attacks.items()
    ]


def _how_to_read(run: Run, confidence: float) -> list[str]:
    lines = [
        "Robust accuracy is the share of test images that the model classifies correctly whichever attack of the "
        "suite is used. It is an upper bound, not a proof: a stronger attack can only lower it. Brackets are "
        f"{confidence:.0%} intervals over whole patients. Read the verdicts above before any number.",
        _few_patients(run, confidence),
        zero_width_warning(short_table(run).rows, confidence, run.test_patients()),
    ]
    return [line for line in lines if line]


def _few_patients(run: Run, confidence: float) -> str:
    """A warning that intervals are too narrow where a class has few test patients; empty if none has."""
    counts = {name: run.test_patients(name) for name in run.classes()}
    few = {name: count for name, count in counts.items() if count is not None and count < FEW_PATIENTS}
    if not few:
        return ""
    named = ", ".join(f"{name} {count}" for name, count in few.items())
    return (
        f"Classes with fewer than {FEW_PATIENTS} test patients ({named}): with so few, an interval of "
        f"{confidence:.0%} contains the true value less often than that, least often near 0 and 1 "
        "(docs/report.md, Intervals)."
    )

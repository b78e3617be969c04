"""The sections of the report, in the order in which a reader needs them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from medrobust.core.intervals import FEW_PATIENTS
from medrobust.core.params.study import StudyParams
from medrobust.core.versions import by_package
from medrobust.report.charts.chart import Chart
from medrobust.report.charts.confusion import Matrix, matrices
from medrobust.report.charts.corruptions import corruption_charts
from medrobust.report.charts.decisions import decision_charts
from medrobust.report.charts.detection import detection_charts
from medrobust.report.charts.robustness import robust_curve
from medrobust.report.charts.training import training_charts
from medrobust.report.evidence.items import find_evidence
from medrobust.report.evidence.tables import evidence_tables, evidence_text
from medrobust.report.page.verdicts import CHECKLIST
from medrobust.report.run import Run
from medrobust.report.tables.accuracy import attack_table, backbone_table, clean_table, short_table
from medrobust.report.tables.calibration import calibration_table, patient_calibration_table, recall_table
from medrobust.report.tables.checklist import checks_table, verdicts_table
from medrobust.report.tables.comparisons import (
    Contrast,
    contrasts,
    corruption_gains_table,
    pairs_table,
    robust_training_table,
)
from medrobust.report.tables.corruptions import corruption_short_table, corruption_tables, corruptions_text
from medrobust.report.tables.cost import cost_table
from medrobust.report.tables.data import audit_table, data_text, split_table
from medrobust.report.tables.decisions import discrimination_table, operating_table
from medrobust.report.tables.detection import detection_tables, detection_text
from medrobust.report.tables.ensemble import ensemble_text, methods_table, weights_table
from medrobust.report.tables.ensemble_attacks import attacked_methods_table
from medrobust.report.tables.explanations import (
    drift_table,
    explanation_example,
    explanation_folds,
    explanation_text,
)
from medrobust.report.tables.external import external_tables, external_text
from medrobust.report.tables.failures import failure_tables
from medrobust.report.tables.groups import group_tables
from medrobust.report.tables.patients import (
    few_images_table,
    no_patient_unit,
    patient_attack_tables,
    patient_short_table,
    single_image_suites,
)
from medrobust.report.tables.repeated import repeated_tables, repeated_text
from medrobust.report.tables.sample_size import sample_size_table
from medrobust.report.tables.table import Table, zero_width_warning
from medrobust.report.tables.targeted import targeted_tables
from medrobust.report.tables.transfer import Grid, transfer_grids, transfer_tables
from medrobust.report.tables.tuning import trial_tables, tuning_table
from medrobust.report.templates import paragraphs

#: The author says nothing.
EMPTY = StudyParams(
    intended_use=None, population=None, reference_standard=None, deidentification=None, funding=None, items={}
)


@dataclass(frozen=True)
class ReportSettings:
    """The values of params.yaml that the report needs; `norms` and `attacks` (as text) are by suite."""

    title: str
    seed: int
    strategy: str  # of the split
    confidence: float
    norms: Mapping[str, str]
    attacks: Mapping[str, str] = field(default_factory=dict)
    study: StudyParams = EMPTY  # what the author says


@dataclass(frozen=True)
class Section:
    """A part of the page; `pictures` names figures that are always shown, `folds` those that open on demand."""

    name: str
    title: str
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    matrices: list[Matrix] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    contrasts: list[Contrast] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    folds: dict[str, list[str]] = field(default_factory=dict)

    @property
    def filled(self) -> list[Table]:
        """The tables that have rows."""
        return [table for table in self.tables if table.rows]

    @property
    def drawn(self) -> bool:
        """Whether it has charts or matrices."""
        return bool(self.charts or self.matrices or self.grids)


def sections(run: Run, settings: ReportSettings) -> list[Section]:
    """Every section that has content."""
    confidence = settings.confidence
    found = [
        *_start(run, confidence),
        *_results(run, settings),
        *_judgement(run, confidence),
        *_rest(run, confidence),
        Section("reproduce", "How to reproduce", [_origin_table(run)], text=_reproduce_text(run, settings)),
    ]
    shown = [s for s in found if s.filled or s.drawn or s.name == "reproduce"]
    evidence = find_evidence(run, shown, settings.study)
    page = Section("evidence", "Evidence", evidence_tables(evidence), text=evidence_text(evidence))
    return [*shown[:-1], page, shown[-1]]


def _start(run: Run, confidence: float) -> list[Section]:
    """The main results, and how they were made."""
    short = short_table(run)
    return [
        Section(
            "glance", "At a glance", [patient_short_table(run, confidence), short],
            text=_glance_text(run, short, confidence),
        ),
        Section(
            "data", "Data", [
                split_table(run), sample_size_table(run, confidence), audit_table(run)
            ], pictures=["classes", "pairs"],
            text=data_text(run),
        ),
        Section("tuning", "Tuning", [tuning_table(run), *trial_tables(run)]),
        Section("training", "Training", charts=training_charts(run)),
    ]  # fmt: skip


def _results(run: Run, settings: ReportSettings) -> list[Section]:
    """Results of every model, clean and attacked."""
    confidence = settings.confidence
    curves = [robust_curve(run, suite, settings.norms[suite]) for suite in run.suites]
    return [
        Section("clean", "Clean results", [clean_table(run, confidence)]),
        Section(
            "patients", "Patients", [*patient_attack_tables(run, confidence), few_images_table(run, confidence)],
            text=single_image_suites(run),
        ),
        Section(
            "attacks", "Under attack", [
                *(attack_table(run, suite, confidence) for suite in run.suites),
                *targeted_tables(run, confidence),
                recall_table(run, confidence),
            ],
            [curve for curve in curves if curve], text=[
                f"Suite {name}: norm {settings.norms[name]}; attacks: {attacks}."
                for name, attacks in settings.attacks.items()
            ],
        ),
        _corruptions(run, confidence),
        Section("groups", "Groups of patients", group_tables(run, confidence)),
        Section("external", "External data", external_tables(run, confidence), text=external_text(run)),
    ]  # fmt: skip


def _judgement(run: Run, confidence: float) -> list[Section]:
    """What the results say of the models: differences, decisions, and whether the numbers can be trusted."""
    return [
        Section(
            "comparisons", "Comparisons",
            [
                robust_training_table(run, confidence), corruption_gains_table(run, confidence),
                *repeated_tables(run, confidence), pairs_table(run, confidence),
            ],
            contrasts=contrasts(run, confidence), text=repeated_text(run),
        ),
        Section(
            "decisions", "Calibration and decisions", [
                discrimination_table(run, confidence), discrimination_table(run, confidence, "patient"),
                operating_table(run, confidence), operating_table(run, confidence, "patient"),
                calibration_table(run, confidence), patient_calibration_table(run, confidence),
            ], decision_charts(run, confidence),
        ),
        Section(
            "backbones", "All numbers, by backbone",
            [backbone_table(run, model, confidence) for model in (*run.backbones, "ensemble")],
        ),
        Section("failures", "Failures", failure_tables(run)),
        Section("checks", CHECKLIST, [verdicts_table(run), checks_table(run)]),
    ]  # fmt: skip


def _rest(run: Run, confidence: float) -> list[Section]:
    """Detection, explanations, the ensemble and costs."""
    return [
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
    ]  # fmt: skip


def _corruptions(run: Run, confidence: float) -> Section:
    tables = [corruption_short_table(run, confidence), *corruption_tables(run, confidence)]
    return Section("corruptions", "Corruptions", tables, corruption_charts(run), text=corruptions_text(run))


def _reproduce_text(run: Run, settings: ReportSettings) -> list[str]:
    """Hashes, commands, seed and versions. No time and no commit, so that the same run gives the same page."""
    versions = by_package(run.versions.values())
    return paragraphs(
        "medrobust.report.page", "reproduce.txt.jinja", run=run, seed=settings.seed, version=version("medrobust"),
        versions=", ".join(f"{name} {'/'.join(sorted(counts))}" for name, counts in versions.items()),
    )  # fmt: skip


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


def _glance_text(run: Run, short: Table, confidence: float) -> list[str]:
    """How to read the results, and warnings about intervals that are too narrow."""
    counts = {name: run.test_patients(name) for name in run.classes()}
    return paragraphs(
        "medrobust.report.page", "glance.txt.jinja", confidence=confidence, limit=FEW_PATIENTS,
        few={name: count for name, count in counts.items() if count is not None and count < FEW_PATIENTS},
        zero_width=zero_width_warning(short.rows),
        no_patient_unit=no_patient_unit(run),
    )  # fmt: skip

"""The results of one run, as dictionaries by name; `collect.py` fills them from the files of the stages."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.lineage import Hash
from medrobust.core.paired import Difference
from medrobust.core.sample_size import Clustering
from medrobust.report.provenance import Provenance

REGIMES = ("clean", "adv")
#: Sources in the transfer matrix that are no models: no attack, and each member of the ensemble attacked alone.
CLEAN, SEPARATE = "no attack", "per member"
#: A backbone (or `ensemble`) and the regime that it was trained under.
Model = tuple[str, str]
#: A model and the attack suite that evaluates it.
Evaluation = tuple[str, str, str]


@dataclass(frozen=True)
class Training:
    """Tuning, by backbone, and training, by model."""

    studies: dict[str, Any] = field(default_factory=dict)  # record of the hyper-parameter search
    chosen: dict[str, Any] = field(default_factory=dict)  # hyper-parameters
    trials: dict[str, pd.DataFrame] = field(default_factory=dict)
    records: dict[Model, Any] = field(default_factory=dict)  # with the results on clean test images
    cards: dict[Model, Any] = field(default_factory=dict)  # of the checkpoints
    history: dict[Model, pd.DataFrame] = field(default_factory=dict)  # one row per epoch


@dataclass(frozen=True)
class Attacks:
    """Evaluations of models and of the ensemble by attack suites, and the checklist's records."""

    records: dict[Evaluation, Any] = field(default_factory=dict)
    curves: dict[Evaluation, pd.DataFrame] = field(default_factory=dict)  # one row per radius
    checks: dict[Model, Any] = field(default_factory=dict)  # also by (label of an ensemble method, regime)

    def of_suite(self, suite: str) -> tuple[dict[Model, Any], list[str]]:
        """The records of one suite by model, and all their radii in order, as the records spell them."""
        records = {
            (model, regime): found for (model, regime, name), found in self.records.items() if name == suite
        }
        return records, sorted(
            {eps for record in records.values() for eps in record["robust_accuracy"]}, key=float
        )


@dataclass(frozen=True)
class Ensemble:
    """The ensemble, attacks on its alternative methods, and how attacks transfer between models."""

    regime: str = "adv"  # of its members
    attacked: tuple[str, ...] = ()  # methods, beside the selected one, that suites attack
    record: dict[str, Any] = field(default_factory=dict)  # of the selected method
    attacks: dict[tuple[str, str], Any] = field(default_factory=dict)  # (method, suite) -> record
    transfer: dict[str, Any] = field(default_factory=dict)  # record
    matrices: dict[tuple[str, float], pd.DataFrame] = field(default_factory=dict)  # by (suite, eps)

    @property
    def model(self) -> Model:
        return "ensemble", self.regime

    @property
    def methods(self) -> dict[str, Any]:
        """Ensemble method -> its record in the comparison."""
        return self.record.get("methods", {})


@dataclass
class Hashes:
    """Hashes that the results of a run must have been made on (core/lineage.py); None or no entry: unknown."""

    data: str | None = None
    split: str | None = None
    models: dict[Model, str] = field(default_factory=dict)  # weights, also by (ensemble method, regime)
    suites: dict[str, str] = field(default_factory=dict)

    def of(self, model: Model | None = None, suite: str | None = None) -> dict[str, Hash]:
        """The hashes of a result of a model, or of no model in particular, under a suite if one is given."""
        found: dict[str, Hash] = {"data": self.data, "split": self.split}
        if model:
            found["weights"] = self.models.get(model)
        return {**found, "suite": self.suites.get(suite)} if suite else found

    def of_all_suites(self, model: Model) -> dict[str, Hash]:
        """The hashes of a result of a model under several suites."""
        return {**self.of(model), "suites": self.suites}

    def of_all_models(self) -> dict[str, Hash]:
        """The hashes of a result of several models, which it names as `name_of` does."""
        return {**self.of(), "models": {name_of(*model): weights for model, weights in self.models.items()}}


@dataclass(frozen=True)
class Patients:
    """Results with the patient as unit; a record without a patient unit has `not_fitted` with the reason."""

    suites: tuple[str, ...] = ()  # that attack patients
    records: dict[Model, Any] = field(default_factory=dict)  # on clean test patients
    attacks: dict[Evaluation, Any] = field(default_factory=dict)


@dataclass
class Corruptions:
    """Records of models on corrupted images, and what they are compared with."""

    records: dict[Model, Any] = field(default_factory=dict)
    baseline: str = ""  # model of the mean corruption error, as `name_of` gives it
    suite: str | None = None  # Linf suite in the figure
    #: Unit -> (backbone, corruption) -> adversarial minus clean training.
    gains: dict[str, dict[tuple[str, str], Difference]] = field(default_factory=dict)


@dataclass(frozen=True)
class External:
    """Results on one external data set; `audit` is {} if the pipeline does not have its images."""

    records: dict[Model, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)


@dataclass
class Answers:
    """What each model answered on each image; tables by `report/answers.py`."""

    predictions: dict[Model, pd.DataFrame] = field(default_factory=dict)  # validation and test images, clean
    attacked: dict[Evaluation, pd.DataFrame] = field(default_factory=dict)  # worst case at the suite's radius
    corrupted: dict[Model, pd.DataFrame] = field(default_factory=dict)  # all corruptions and severities, one draw
    patients: dict[Model, pd.DataFrame] = field(default_factory=dict)  # of patients, clean; `id` is the patient
    patients_attacked: dict[Evaluation, pd.DataFrame] = field(default_factory=dict)
    patients_corrupted: dict[Model, pd.DataFrame] = field(default_factory=dict)
    radii: dict[str, str] = field(default_factory=dict)  # suite -> the radius, as the records spell it
    scores: pd.DataFrame | None = None  # log-probabilities before and after an attack with all steps
    patients_scored: dict[Model, pd.DataFrame] = field(default_factory=dict)  # after an attack with all steps


@dataclass(frozen=True)
class SampleSize:
    """What the clean test images can tell (`core.sample_size`)."""

    images: int
    patients: int
    by_class: dict[str, int]  # patients
    cluster: Clustering
    rate: float  # median balanced accuracy of the models, which is the expected recall of each class
    half_width: float  # of the interval of such a balanced accuracy
    difference: float | None  # smallest one between two models that the test is likely to find; None: one model


@dataclass(frozen=True)
class Scored:
    """Probabilities of one model on one set of test images, or of test patients."""

    unit: str  # `image` or `patient`
    images: str  # `clean`, or suite and radius
    labels: np.ndarray  # int, n
    patients: np.ndarray  # text, n
    logprobs: np.ndarray  # n×K
    auroc: float | None
    auroc_ci: list[float] | None
    calibration: dict[str, Any]  # `core.reliability.calibration`, and `accuracy` with its interval


@dataclass(frozen=True)
class Comparison:
    """Paired differences of all models on the same test images or patients, clean or under one suite."""

    unit: str  # `image` or `patient`
    images: str  # `clean`, or suite and radius
    measure: str  # what is compared
    models: list[Model]
    n: int
    patients: int
    pairs: dict[tuple[Model, Model], Difference]  # (a, b): a minus b


@dataclass(frozen=True)
class Repeated:
    """A table of repeated runs; its rows have `runs`, `mean`, `sd` and `worst`.

    Attributes:
        over: `seeds` or `folds`.
        file: the table.
        belongs: whether its column of this run has the numbers of this run.
        rows: (unit, model, measure) -> results over the runs.
        pooled: (model, measure) -> `mean`, `low` and `high` over the test patients of all folds.
    """

    over: str
    file: str
    belongs: bool
    rows: dict[tuple[str, str, str], dict[str, Any]]
    pooled: dict[tuple[str, str], dict[str, Any]]


@dataclass
class Run:
    """All results of one run; the records of the data are {} if missing.

    A table of `confusion` has `actual` and `predicted` class names, one row per clean test image.
    """

    backbones: list[str]  # names from params.yaml
    suites: list[str]  # names from params.yaml
    header: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    training: Training = field(default_factory=Training)
    attacks: Attacks = field(default_factory=Attacks)
    ensemble: Ensemble = field(default_factory=Ensemble)
    patients: Patients = field(default_factory=Patients)
    answers: Answers = field(default_factory=Answers)
    comparisons: list[Comparison] = field(default_factory=list)
    repeated: list[Repeated] = field(default_factory=list)
    scored: dict[Model, list[Scored]] = field(default_factory=dict)  # images, then patients; of both clean first
    sample: SampleSize | None = None
    confusion: dict[Model, pd.DataFrame] = field(default_factory=dict)
    detect: dict[Model, Any] = field(default_factory=dict)  # records of guarded models
    drawn: dict[Model, dict[str, pd.DataFrame]] = field(default_factory=dict)  # tables of their curves by name
    explain: dict[Model, Any] = field(default_factory=dict)  # records of explained models
    corruptions: Corruptions = field(default_factory=Corruptions)
    external: dict[str, External] = field(default_factory=dict)  # by the name of the data set
    cases: dict[str, int] = field(default_factory=dict)  # images of report/cases.html: id -> number on that page
    #: Of images and of patients (`image`, `patient`), by id, one column each; "" = unknown.
    groups: dict[str, pd.DataFrame] = field(default_factory=dict)
    hashes: Hashes = field(default_factory=Hashes)
    missing: list[str] = field(default_factory=list)  # files that should be there
    foreign: dict[str, str] = field(default_factory=dict)  # file -> why it belongs to another run and was not read
    versions: dict[str, str] = field(default_factory=dict)  # file -> versions of the packages that computed it
    provenance: Provenance | None = None  # None where there is nothing to compare with
    code: str | None = None  # hash of the code (the md5 that dvc.lock holds for data/code); None if unknown

    def models(self) -> Iterator[Model]:
        """Every model that is attacked, the ensemble last."""
        for backbone in self.backbones:
            for regime in REGIMES:
                yield backbone, regime
        yield self.ensemble.model

    def clean_record(self, model: str, regime: str) -> dict[str, Any]:
        """A model's results on clean test images; {} if missing."""
        found: dict[str, Any] = (
            self.ensemble.record if model == "ensemble" else self.training.records.get((model, regime), {})
        )
        return found

    def transferred(self, source: str, model: str, regime: str) -> dict[tuple[str, float], dict[Any, Any]]:
        """Results of a model on images that were made on `source`: (suite, eps) -> row of the transfer matrix.

        `source` is `CLEAN`, `SEPARATE` or a name as `name_of` gives it.
        """
        wanted = (source, name_of(model, regime))
        return {
            cell: row
            for cell, matrix in self.ensemble.matrices.items()
            for row in matrix.to_dict("records")
            if (row["source"], row["judge"]) == wanted
        }

    def test_patients(self, name: str | None = None) -> int | None:
        """The number of test patients, or of those of one class; None if it is not known.

        Images without a patient id count as one patient each in an evaluation, and as none in the split.
        """
        part = self.split.get("test", {})
        if name:
            return part.get("patients_by_class", {}).get(name) or None
        counts = [record["patients"] for record in self.attacks.records.values() if record.get("patients")]
        return min(counts, default=part.get("patients") or None)

    def constant_answer(self, *, patients: bool = False) -> float | None:
        """Accuracy on test images (or test patients) of always answering the largest class; None if unknown."""
        part = self.split.get("test", {})
        known = part.get("patients_by_class", {}) if patients else part
        counts = [known.get(name) or 0 for name in self.classes()]
        return max(counts) / sum(counts) if sum(counts) else None

    def classes(self) -> list[str]:
        """The classes that models know: those of the header, without those that merging left empty."""
        named: list[str] = self.header.get("classes", [])
        return [name for name in named if not self.split or any(part.get(name) for part in self.split.values())]

    def training_eps(self) -> dict[str, float]:
        """Backbone -> radius of its adversarial training, where the checkpoint's card holds it."""
        known = {
            name: card.get("params", {}).get("adv", {})
            for (name, regime), card in self.training.cards.items()
            if regime == "adv"
        }
        return {name: float(adv["eps"]) for name, adv in known.items() if "eps" in adv}

    def nearest_eps(self, model: str, regime: str, suite: str) -> str | None:
        """The radius of an evaluation that is nearest to the training radius, spelled as in its record.

        The training radius is that of the backbone's card. For the ensemble, and for a backbone without such a
        card, it is the largest of all cards, and 0 if there is none.
        """
        return self._nearest(self.attacks.records, model, regime, suite)

    def nearest_patient_eps(self, model: str, regime: str, suite: str) -> str | None:
        """The radius of an attack on patients that is nearest to the training radius, as in `nearest_eps`."""
        return self._nearest(self.patients.attacks, model, regime, suite)

    def _nearest(self, records: dict[Evaluation, Any], model: str, regime: str, suite: str) -> str | None:
        grid = records.get((model, regime, suite), {}).get("robust_accuracy", {})
        radii = self.training_eps()
        eps = radii.get(model, max(radii.values(), default=0.0))
        return min(grid, key=lambda radius: abs(float(radius) - eps)) if grid else None

    def verdict_of(self, model: str, regime: str, suite: str) -> str:
        """The checklist's verdict on one evaluation; `unchecked` if there is none."""
        suites = self.attacks.checks.get((model, regime), {}).get("suites", {})
        return str(suites.get(suite, {}).get("verdict", "unchecked"))

    def worst_verdict(self, *model: str) -> str:
        """The worst checklist verdict of all evaluations, or of those of one `model, regime`."""
        methods = ((method_label(method), self.ensemble.regime, suite) for method, suite in self.ensemble.attacks)
        evaluations = (*self.attacks.records, *methods)
        verdicts = {self.verdict_of(*key) for key in evaluations if not model or key[:2] == model}
        worst = next((word for word in ("invalid", "unchecked", "suspect") if word in verdicts), None)
        return worst or ("no problem found" if verdicts else "missing")


def name_of(model: str, regime: str) -> str:
    """A model's name in the transfer matrix and among the members of the ensemble."""
    return model if model == "ensemble" else f"{model}-{regime}"


def method_label(method: str) -> str:
    """The name of an ensemble by its method, beside the names of models."""
    return f"{method} ensemble"

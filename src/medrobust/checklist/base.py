"""The parts of a check: the evidence that it looks at, its thresholds, and its result."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import Tensor, nn

from medrobust.core.params.report import ReportParams
from medrobust.data.store import Subset

Outcome = Literal["pass", "warn", "fail", "skip"]
Verdict = Literal["no problem found", "suspect", "invalid"]


@dataclass(frozen=True)
class ImageSample:
    """Some images of a subset with their classes and seeds, on the model's device.

    Attributes:
        rows: int, n; positions in the subset.
        images: float, n×C×H×W in [0, 1].
        labels, seeds: int64, n.
    """

    rows: np.ndarray
    images: Tensor
    labels: Tensor
    seeds: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, which: np.ndarray) -> "ImageSample":
        """The images at some positions or under a mask."""
        index = np.flatnonzero(which) if which.dtype == bool else which
        return ImageSample(self.rows[index], self.images[index], self.labels[index], self.seeds[index])


@dataclass(frozen=True)
class RadiusCurve:
    """Counts of images after new attacks at several radii on one sample.

    Attributes:
        not_monotone: images fooled at one radius and not at the next larger one; the largest count over all
            pairs of neighbouring radii.
        robust_at_one: images that no attack fooled at radius 1.
        images: all images of the sample; the model classifies them correctly without an attack.
        fooled: images that an attack with all its steps fools at the radius of the checks.
        fooled_stored: those of them that are still fooled after rounding to the bit depth of the stored images.
    """

    not_monotone: int
    robust_at_one: int
    images: int
    fooled: int
    fooled_stored: int


@dataclass(frozen=True)
class ModelEvidence:
    """The input of the checks of a model.

    Attributes:
        sample: test images, whether classified correctly or not.
        classes: number of classes of the data.
        preds, labels: int, of all test images, without an attack.
        curve: None if the model classifies no image of the sample correctly.
    """

    model: nn.Module
    sample: ImageSample
    classes: int
    preds: np.ndarray
    labels: np.ndarray
    curve: RadiusCurve | None


@dataclass(frozen=True)
class Challenge:
    """Results of the challengers at one radius, on images that at least one suite of the model did not fool.

    Attributes:
        eps: the radius.
        rows: int, n; positions of the images in the subset.
        descriptions: challenger -> what it did, in words.
        fooled: challenger -> bool, n.
        noise_margin: n; the largest margin that noise reached.
        skipped: challenger -> why it did not run.
    """

    eps: float
    rows: np.ndarray
    descriptions: dict[str, str]
    fooled: dict[str, np.ndarray]
    noise_margin: np.ndarray
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteEvidence:
    """The input of the checks of an evaluation, which is one model under one suite.

    Attributes:
        suite: as returned by `attacks.engine.suite.resolve_suite`.
        attempts: the attack records, one row per image and attempt.
        records: their worst case, one row per image and radius.
        eps: the radius of the challengers, one of the suite's.
        adversarial: whether the model was trained on attacked images.
        challenge: None if all suites with this norm and `eps` fooled every image.
    """

    suite: dict[str, Any]
    attempts: pd.DataFrame
    records: pd.DataFrame
    subset: Subset
    eps: float
    adversarial: bool
    challenge: Challenge | None
    report: ReportParams

    def records_at(self, eps: float) -> pd.DataFrame:
        """The records at one radius, in the order of the subset."""
        return self.records[self.records["eps"] == eps].set_index("id").loc[self.subset.ids].reset_index()


@dataclass(frozen=True)
class Measurement:
    """The number that a check compares with its thresholds, and a sentence about it.

    Attributes:
        value: None if it could not be measured.
        text: the sentence; if there is no value, the reason.
    """

    value: float | None
    text: str


@dataclass(frozen=True)
class Check:
    """One question about a model or an evaluation.

    Attributes:
        name: as printed in the report.
        of: `model` (run once per model) or `suite` (run once per evaluation).
        measures: what the number is.
        warn, fail: the check warns or fails if the number is larger; None = it never does.
        means: what to conclude if the check does not pass.
        remedy: what to do then.
        measure: evidence -> number.
    """

    name: str
    of: Literal["model", "suite"]
    measures: str
    warn: float | None
    fail: float | None
    means: str
    remedy: str
    measure: Callable[[Any], Measurement]


@dataclass(frozen=True)
class CheckResult:
    """The outcome of a check, and the sentence about what it measured."""

    check: Check
    outcome: Outcome
    text: str


def run_check(check: Check, evidence: ModelEvidence | SuiteEvidence) -> CheckResult:
    """Measure and compare with the thresholds. A number that is not defined (NaN) fails."""
    measurement = check.measure(evidence)
    value = measurement.value
    outcome: Outcome = "pass"
    if value is None:
        outcome = "skip"
    elif math.isnan(value) or (check.fail is not None and value > check.fail):
        outcome = "fail"
    elif check.warn is not None and value > check.warn:
        outcome = "warn"
    return CheckResult(check, outcome, measurement.text)


def verdict(outcomes: Iterable[Outcome]) -> Verdict:
    """The worst of some outcomes. The best verdict is that no problem was found, never "robust"."""
    distinct = set(outcomes)
    return "invalid" if "fail" in distinct else "suspect" if "warn" in distinct else "no problem found"


def lower_bound(count: int, total: int) -> float:
    """Lower end of the one-sided 95 % interval of the share count / total (Clopper & Pearson 1934).

    Checks compare this bound, and not the observed share, with their thresholds, so that a small sample cannot
    make a sound evaluation invalid. The price is that a small sample misses small faults.
    """
    from scipy.special import betaincinv  # the quantile of scipy.stats.beta, which takes a second to import

    return float(betaincinv(count, total - count + 1, 0.05)) if count else 0.0

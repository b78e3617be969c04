"""The parts of a check: the evidence that it looks at, its thresholds, and its result."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    """Images n×C×H×W in [0, 1] of a subset with int64 labels and seeds, on the model's device.

    `rows`, int n, are their positions in the subset.
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
    """Counts of images after new attacks at several radii on a sample that the model classifies correctly.

    `not_monotone`: fooled at one radius and not at the next larger one; the largest count over all neighbouring
    radii. `fooled`: fooled by an attack with all its steps at the radius of the checks; `fooled_stored` of them
    are still fooled after rounding to the bit depth of the stored images.
    """

    not_monotone: int
    robust_at_one: int
    images: int
    fooled: int
    fooled_stored: int


@dataclass(frozen=True)
class ModelEvidence:
    """The input of the checks of a model.

    `sample` has test images, whether classified correctly or not. `preds` and `labels` are int, of all test
    images, without an attack. `curve` is None if the model classifies no image of the sample correctly.
    `trainings` has the `adv` block of its adversarial training, or of each member's; none for a clean model.
    """

    model: nn.Module
    sample: ImageSample
    classes: int
    preds: np.ndarray
    labels: np.ndarray
    curve: RadiusCurve | None
    trainings: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Challenge:
    """Results of the challengers at one radius, on images that at least one suite of the model did not fool.

    `rows`, int n, are positions in the subset. By challenger: `fooled` is bool n, `descriptions` say what it did,
    and `skipped` says why it did not run. `noise_margin`, n, is the largest margin that noise reached.
    """

    eps: float
    rows: np.ndarray
    descriptions: dict[str, str]
    fooled: dict[str, np.ndarray]
    noise_margin: np.ndarray
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Paths:
    """Short paths of an attack at one radius, on images that at least one suite of the model did not fool.

    Each image has two: one from the clean image and one from a random corner of half the ball. `rows`, int n, are
    positions in the subset.

    Attributes:
        gains: n×2, changes of the margin over what the gradients along the path add up to (trapezoidal rule): 1
            for a useful gradient, NaN where all gradients are zero.
        cosines: n×2, the cosine of the gradients before and after a step, averaged over the steps, or that of the
            gradients at both ends of the path, whichever is smaller.
        errors: n, the difference between the change of the margin from the clean image to the corner and the
            change that the gradients at both predict, in units of the average change in a random direction. NaN
            where both gradients are zero.
    """

    rows: np.ndarray
    gains: np.ndarray
    cosines: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True)
class SuiteEvidence:
    """The input of the checks of an evaluation, which is one model under one suite.

    `suite` is as returned by `attacks.engine.suite.resolve_suite`. `attempts` has one row per image and attempt,
    `records` one per image and radius. `eps` is the radius of the challengers, one of the suite's. `challenge` and
    `paths` are None if all suites with this norm and `eps` fooled every image, and for patches.
    `fooled_by_others`, bool m×n, has one row per other suite of this norm: the images of the subset that it fooled
    at this radius or a smaller one.
    """

    suite: dict[str, Any]
    attempts: pd.DataFrame
    records: pd.DataFrame
    subset: Subset
    eps: float
    adversarial: bool
    challenge: Challenge | None
    report: ReportParams
    paths: Paths | None
    fooled_by_others: np.ndarray

    def records_at(self, eps: float) -> pd.DataFrame:
        """The records at one radius, in the order of the subset."""
        return self.records[self.records["eps"] == eps].set_index("id").loc[self.subset.ids].reset_index()


@dataclass(frozen=True)
class Measurement:
    """A number to compare with thresholds, and a sentence about it; None and the reason if it was not measured."""

    value: float | None
    text: str


@dataclass(frozen=True)
class Check:
    """One question about a model (asked once per model) or a suite (once per evaluation).

    It warns or fails if the number is larger than `warn` or `fail`; None = it never does. `measures` describes the
    number, `means` what to conclude if the check does not pass.
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

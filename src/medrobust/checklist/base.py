"""What a check is: a question with thresholds, evidence that it looks at, and a finding that it gives."""

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
class Sample:
    """Some images with the class and the seed of each, on the model's device.

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

    def part(self, keep: np.ndarray) -> "Sample":
        """The images at the positions, or under the mask, `keep`."""
        index = np.flatnonzero(keep) if keep.dtype == bool else keep
        return Sample(self.rows[index], self.images[index], self.labels[index], self.seeds[index])


@dataclass(frozen=True)
class Curve:
    """A fresh attack at several radii on one sample.

    Attributes:
        lost: images fooled at a radius and not at a larger one, at their worst pair of neighbours.
        standing: images that no attack fooled at radius 1.
        images: all of them, answered rightly without an attack.
        fooled, stored: images that a whole attack fools at the radius of the checks, and those of them that it
            still fools once rounded to the bit depth of the stored images.
    """

    lost: int
    standing: int
    images: int
    fooled: int
    stored: int


@dataclass(frozen=True)
class ModelEvidence:
    """What the checks of a model look at.

    Attributes:
        sample: test images of any kind.
        classes: how many the data have.
        preds, labels: int, of all test images, without an attack.
        curve: None where the model answers no image of the sample rightly.
    """

    model: nn.Module
    sample: Sample
    classes: int
    preds: np.ndarray
    labels: np.ndarray
    curve: Curve | None


@dataclass(frozen=True)
class Challenge:
    """What other attacks do to images that a model's suites left standing, at one radius.

    Attributes:
        eps: the radius.
        rows: int, n; positions of the images in the subset.
        who: challenger -> what it did, in words.
        fooled: challenger -> bool, n.
        noise_margin: n; the largest margin that noise reached.
        skipped: challenger -> why it did not run.
    """

    eps: float
    rows: np.ndarray
    who: dict[str, str]
    fooled: dict[str, np.ndarray]
    noise_margin: np.ndarray
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteEvidence:
    """What the checks of an evaluation, one model under one suite, look at.

    Attributes:
        suite: as `attacks.suite.resolve_suite` gives it.
        attempts: the engine's records, one row an image and attempt.
        records: their per-image worst case, one row an image and radius.
        eps: the radius that challengers work at, one of the suite's.
        adversarial: whether the model was trained on attacked images.
        challenge: None where no image of the suite stands.
    """

    suite: dict[str, Any]
    attempts: pd.DataFrame
    records: pd.DataFrame
    subset: Subset
    eps: float
    adversarial: bool
    challenge: Challenge | None
    report: ReportParams

    def at(self, eps: float) -> pd.DataFrame:
        """The records at a radius, in the order of the subset."""
        return self.records[self.records["eps"] == eps].set_index("id").loc[self.subset.ids].reset_index()


@dataclass(frozen=True)
class Measured:
    """A check's number, None where it could not be measured, and the sentence that says so."""

    value: float | None
    text: str


@dataclass(frozen=True)
class Check:
    """One question about a model or an evaluation.

    Attributes:
        name: as the report prints it.
        of: `model` (asked once a model) or `suite` (asked once an evaluation).
        measures: what the number is.
        warn, fail: the number above which the check warns or fails; None = it never does.
        means: what a reader should conclude where it does not pass.
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
    measure: Callable[[Any], Measured]


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    check: Check
    outcome: Outcome
    measured: str


def judge(check: Check, evidence: ModelEvidence | SuiteEvidence) -> Finding:
    """Ask one check; a number that is not defined (NaN) fails."""
    measured = check.measure(evidence)
    value = measured.value
    outcome: Outcome = "pass"
    if value is None:
        outcome = "skip"
    elif math.isnan(value) or (check.fail is not None and value > check.fail):
        outcome = "fail"
    elif check.warn is not None and value > check.warn:
        outcome = "warn"
    return Finding(check, outcome, measured.text)


def verdict(outcomes: Iterable[Outcome]) -> Verdict:
    """The worst of some outcomes; the best that can be said is that no problem was found, never "robust"."""
    found = set(outcomes)
    return "invalid" if "fail" in found else "suspect" if "warn" in found else "no problem found"


def surely(count: int, total: int) -> float:
    """The share that `count` of `total` images proves: the lower end of the one-sided 95 % interval.

    Checks compare this, and not the observed share, with their thresholds, so that a small sample cannot call
    a sound evaluation invalid; what it costs is that a small sample misses small faults (Clopper & Pearson 1934).
    """
    from scipy.special import betaincinv  # the quantile of scipy.stats.beta, without its second of importing

    return float(betaincinv(count, total - count + 1, 0.05)) if count else 0.0

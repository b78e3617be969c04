"""Charts of detection: every line of an unaware attacker beside that of an aware one.

Both are measured on the images that the aware attackers attacked. Without aware attackers nothing is drawn.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from medrobust.report.charts.chart import Chart, bend
from medrobust.report.run import Run
from medrobust.report.tables.accuracy import TRAINING

#: The cost is drawn against the threshold at the share of attacked images in detect.risk that is nearest to this.
SHARE = 0.1
ATTACKERS = ("unaware", "aware")
#: Rates at which curves are evaluated, so that one pointer shows all lines.
GRID = np.unique([0, 0.01, 0.02, *np.linspace(0, 1, 41)]).round(3)
#: Index of the colour for no detector.
NO_DETECTOR = 7
COST = "mean cost (errors of one grade)"
FALSE_POSITIVES = "false-positive rate (share of clean images rejected)"
RATES = {
    "roc": ("ROC", FALSE_POSITIVES, "true-positive rate"),
    "pr": ("precision and recall", "recall (share of successful attacks rejected)", "precision"),
}
UNITS = ("image", "patient")
#: Text for a threshold above all scores and for one below.
EXTREMES = {np.inf: "rejects none", -np.inf: "rejects all"}
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class GuardedSuite:
    """Everything that is drawn of one guarded model under one suite.

    The tables are those of the detection stage: rows of this suite on the compared images. `counts` maps
    (detector, attacker) to `n`, `patients` and `successful` attacks on the compared images.
    """

    name: str  # in the names of charts and figures, without spaces
    title: str
    detectors: list[str]
    curves: pd.DataFrame
    risk: pd.DataFrame
    costs: pd.DataFrame
    counts: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)

    def sample(self) -> str:
        """The number of compared images and of their patients, as text."""
        first = next(iter(self.counts.values()), {})
        return f"{first['n']} images of {first['patients']} patients" if "patients" in first else ""

    def rates(self, kind: str, detector: str, attacker: str) -> Points:
        """A curve of successful attacks at the rates of `GRID`: (fpr, tpr), or (recall, precision); [] if none."""
        rows = _of(self.curves, detector, attacker)
        rows = rows[rows["attacks"] == "successful"]
        if rows.empty:
            return []
        false, found, precise = (rows[name].to_numpy() for name in ("fpr", "tpr", "precision"))
        if kind == "roc":
            values = [found[false <= x].max(initial=0.0) for x in GRID]
        else:
            # The strictest threshold with at least this recall; laxer ones have a higher recall.
            values = [precise[np.argmax(found >= x)] for x in GRID]
        return [(float(x), round(float(y), 6)) for x, y in zip(GRID, values, strict=True)]

    def base_rate(self, detector: str, attacker: str) -> float | None:
        """Precision of rejecting everything; None without a successful attack."""
        rows = _of(self.curves, detector, attacker)
        rows = rows[rows["attacks"] == "successful"]
        return None if rows.empty else float(rows["precision"].iloc[-1])

    def costs_by_share(self, unit: str, detector: str, attacker: str, column: str = "cost_with") -> Points:
        """(share of attacked images, cost) at the threshold that is cheapest for it on validation images."""
        rows = _of(self.risk, detector, attacker)
        rows = rows[rows["unit"] == unit].sort_values("share")
        return [(float(x), round(float(y), 6)) for x, y in rows[["share", column]].itertuples(index=False)]

    @property
    def share(self) -> float:
        """The share of detect.risk that is nearest to `SHARE`."""
        return float(min(self.risk["share"], key=lambda share: abs(np.log(max(share, 1e-12) / SHARE))))

    def costs_by_threshold(self, detector: str, attacker: str) -> Points:
        """(share of clean images rejected, cost if `share` of all images is attacked), from none to all."""
        rows = _of(self.costs, detector, attacker)
        rows = rows[rows["unit"] == "image"]
        rejected = rows["clean_rejected"].to_numpy()
        costs = ((1 - self.share) * rows["cost_clean"] + self.share * rows["cost_attacked"]).to_numpy()
        # Thresholds increase, so the first one that rejects at most this share is the strictest.
        return [(float(x), round(float(costs[np.argmax(rejected <= x)]), 6)) for x in GRID]

    def chosen(self, detector: str) -> float:
        """Share of clean images that the threshold for `share` rejects."""
        rows = _of(self.risk, detector, "aware")
        return float(rows[(rows["unit"] == "image") & (rows["share"] == self.share)]["clean_rejected"].iloc[0])


def _of(table: pd.DataFrame, detector: str, attacker: str) -> pd.DataFrame:
    return table[(table["detector"] == detector) & (table["attacker"] == attacker)]


def guarded_suites(run: Run) -> Iterator[GuardedSuite]:
    """Every guarded model and suite with results of aware attackers."""
    for (model, regime), tables in run.drawn.items():
        paired = {name: table[table["images"] == "paired"] for name, table in tables.items()}
        for suite, results in run.detect.get((model, regime), {}).get("suites", {}).items():
            parts = {name: table[table["suite"] == suite] for name, table in paired.items()}
            if parts["risk"].empty:
                continue
            title = f"{suite} ε {results['eps']:g} on {model}, {TRAINING[regime]} training"
            detectors = list(dict.fromkeys(parts["risk"]["detector"]))
            pairs = {detector: results.get(detector, {}).get("adaptive", {}) for detector in detectors}
            counts = {
                (detector, attacker): adaptive[name]
                for detector, adaptive in pairs.items()
                for attacker, name in zip(ATTACKERS, ("unaware", "worst"), strict=True)
                if name in adaptive
            }
            yield GuardedSuite(f"{model}-{regime}_{suite}", title, detectors, **parts, counts=counts)


def detection_charts(run: Run) -> list[Chart]:
    """Per model and suite: ROC, precision-recall, cost by share (at the cheapest threshold), cost by threshold."""
    charts = []
    for part in guarded_suites(run):
        charts += [_rates(part, kind) for kind in RATES]
        charts += [_risk(part, unit) for unit in UNITS]
        charts.append(_thresholds(part))
    return charts


def _lines(
    part: GuardedSuite, read: Callable[[str, str], Points], base_rates: bool = False, successful: bool = False
) -> list[dict[str, Any]]:
    """One line per detector and attacker with the points of `read`; `successful` adds the number of attacks."""
    found = []
    for number, detector in enumerate(part.detectors):
        for attacker in ATTACKERS:
            if points := read(detector, attacker):
                base = f" (base rate {part.base_rate(detector, attacker):.2f})" if base_rates else ""
                count = part.counts.get((detector, attacker), {}).get("successful") if successful else None
                sample = "" if count is None else f", n {count}"
                name = f"{detector}, {attacker}{sample}{base}"
                found.append({"name": name, "colour": number, "dashed": attacker == "aware", "points": points})
    return found


def _rates(part: GuardedSuite, kind: str) -> Chart:
    label, x, y = RATES[kind]
    lines = _lines(part, partial(part.rates, kind), base_rates=kind == "pr", successful=True)
    title = _title(part, f"{label}, successful attacks")
    return Chart(f"{kind}-{part.name}", title, x, y, lines, 1.0)


def _title(part: GuardedSuite, what: str) -> str:
    sample = part.sample()
    return f"{part.title}: {what}" + (f" ({sample})" if sample else "")


def _risk(part: GuardedSuite, unit: str) -> Chart:
    lines = _lines(part, partial(part.costs_by_share, unit))
    without = part.costs_by_share(unit, part.detectors[0], "unaware", "cost_without")
    lines.insert(0, {"name": "no detector, unaware", "colour": NO_DETECTOR, "dashed": False, "points": without})
    shares = [point[0] for point in without]
    table = {f"{share:g}": _at(part, unit, share) for share in shares}
    columns = ("detector", "attacker", "cost", "no detector", "threshold", f"clean {unit}s rejected")
    return Chart(
        f"risk-{unit}-{part.name}", _title(part, f"cost by {unit} at the cheapest threshold"),
        f"share of attacked {unit}s", f"{COST}, by {unit}", lines, None, None, bend(shares), columns, table,
    )  # fmt: skip


def _at(part: GuardedSuite, unit: str, share: float) -> list[list[str]]:
    """The cheapest threshold of each detector at a share, and its cost under either attacker."""
    found = part.risk[(part.risk["unit"] == unit) & (part.risk["share"] == share)]
    rows = []
    for row in found.to_dict("records"):
        costs = [f"{row['cost_with']:.3f}", f"{row['cost_without']:.3f}"]
        threshold = EXTREMES.get(row["threshold"], f"{row['threshold']:.4g}")
        rows.append([row["detector"], row["attacker"], *costs, threshold, f"{row['clean_rejected']:.0%}"])
    return rows


def _thresholds(part: GuardedSuite) -> Chart:
    title = _title(part, f"cost by threshold where {part.share:.2g} of the images are attacked")
    lines = _lines(part, part.costs_by_threshold)
    return Chart(f"threshold-{part.name}", title, FALSE_POSITIVES, f"{COST}, by image", lines)

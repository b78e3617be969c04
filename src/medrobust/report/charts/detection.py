"""The charts of detection: every line of an attacker who does not know the detector beside one who does.

Both are measured on the same images, those that aware attackers were given; where none were, nothing is drawn.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from medrobust.report.charts.models import Chart, bend
from medrobust.report.collect import Run
from medrobust.report.tables.models import TRAINING

#: Share of attacked images at which the cost is drawn against the threshold: the swept one nearest to it.
SHARE = 0.1
ATTACKERS = ("unaware", "aware")
#: Rates at which curves are read off, so that one pointer shows all lines.
GRID = np.unique([0, 0.01, 0.02, *np.linspace(0, 1, 41)]).round(3)
#: Colour of what has no detector.
PLAIN = 7
COST = "mean cost (errors of one grade)"
FALSE_POSITIVES = "false-positive rate (share of clean images rejected)"
RATES = {
    "roc": ("ROC", FALSE_POSITIVES, "true-positive rate"),
    "pr": ("precision and recall", "recall (share of successful attacks rejected)", "precision"),
}
UNITS = ("image", "patient")
#: What a threshold that no score reaches, or every score passes, means.
EXTREMES = {np.inf: "rejects none", -np.inf: "rejects all"}
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Shown:
    """What is drawn of one guarded model under one suite.

    Attributes:
        name: of figures, without spaces.
        title: words.
        detectors: names.
        curves, risk, costs: tables of the cell, this suite's rows on the compared images.
        counts: (detector, attacker) -> `n`, `patients` and `successful` attacks of the compared images.
    """

    name: str
    title: str
    detectors: list[str]
    curves: pd.DataFrame
    risk: pd.DataFrame
    costs: pd.DataFrame
    counts: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)

    def sample(self) -> str:
        """How many images of how many patients are compared."""
        first = next(iter(self.counts.values()), {})
        return f"{first['n']} images of {first['patients']} patients" if "patients" in first else ""

    def rates(self, kind: str, detector: str, attacker: str) -> Points:
        """A curve of successful attacks read off at `GRID`: (fpr, tpr), or (recall, precision); [] if none."""
        rows = _of(self.curves, detector, attacker)
        rows = rows[rows["attacks"] == "successful"]
        if rows.empty:
            return []
        false, found, precise = (rows[name].to_numpy() for name in ("fpr", "tpr", "precision"))
        if kind == "roc":
            values = [found[false <= x].max(initial=0.0) for x in GRID]
        else:
            # Of the strictest threshold that finds so many: a laxer one may be more precise, but finds more.
            values = [precise[np.argmax(found >= x)] for x in GRID]
        return [(float(x), round(float(y), 6)) for x, y in zip(GRID, values, strict=True)]

    def base_rate(self, detector: str, attacker: str) -> float | None:
        """Precision of rejecting everything; None without a successful attack."""
        rows = _of(self.curves, detector, attacker)
        rows = rows[rows["attacks"] == "successful"]
        return None if rows.empty else float(rows["precision"].iloc[-1])

    def paid(self, unit: str, detector: str, attacker: str, column: str = "cost_with") -> Points:
        """(share of attacked, cost) at the threshold that is cheapest on validation images for that share."""
        rows = _of(self.risk, detector, attacker)
        rows = rows[rows["unit"] == unit].sort_values("share")
        return [(float(x), round(float(y), 6)) for x, y in rows[["share", column]].itertuples(index=False)]

    @property
    def share(self) -> float:
        """The swept share that is nearest to `SHARE`."""
        return float(min(self.risk["share"], key=lambda share: abs(np.log(max(share, 1e-12) / SHARE))))

    def by_threshold(self, detector: str, attacker: str) -> Points:
        """(share of clean images rejected, cost where `share` is attacked), from reject none to reject all."""
        rows = _of(self.costs, detector, attacker)
        rows = rows[rows["unit"] == "image"]
        rejected = rows["clean_rejected"].to_numpy()
        costs = ((1 - self.share) * rows["cost_clean"] + self.share * rows["cost_attacked"]).to_numpy()
        # Thresholds rise, so that the first that rejects no more is the strictest.
        return [(float(x), round(float(costs[np.argmax(rejected <= x)]), 6)) for x in GRID]

    def chosen(self, detector: str) -> float:
        """Share of clean images rejected by the threshold chosen for `share`."""
        rows = _of(self.risk, detector, "aware")
        return float(rows[(rows["unit"] == "image") & (rows["share"] == self.share)]["clean_rejected"].iloc[0])


def _of(table: pd.DataFrame, detector: str, attacker: str) -> pd.DataFrame:
    return table[(table["detector"] == detector) & (table["attacker"] == attacker)]


def shown(run: Run) -> Iterator[Shown]:
    """Every guarded model and suite that aware attackers attacked too."""
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
            yield Shown(f"{model}-{regime}_{suite}", title, detectors, **parts, counts=counts)


def detection_charts(run: Run) -> list[Chart]:
    """ROC, precision-recall, cost by share (with the cheapest thresholds) and cost by threshold, a suite each."""
    charts = []
    for part in shown(run):
        charts += [_rates(part, kind) for kind in RATES]
        charts += [_risk(part, unit) for unit in UNITS]
        charts.append(_thresholds(part))
    return charts


def _lines(
    part: Shown, read: Callable[[str, str], Points], base_rates: bool = False, successful: bool = False
) -> list[dict[str, Any]]:
    """A line a detector and attacker; `read` gives its points. Of successful attacks their number is told."""
    found = []
    for number, detector in enumerate(part.detectors):
        for attacker in ATTACKERS:
            if points := read(detector, attacker):
                base = f" (base rate {part.base_rate(detector, attacker):.2f})" if base_rates else ""
                count = part.counts.get((detector, attacker), {}).get("successful") if successful else None
                said = "" if count is None else f", n {count}"
                line = {
                    "name": f"{detector}, {attacker}{said}{base}",
                    "colour": number,
                    "dashed": attacker == "aware",
                }
                found.append({**line, "points": points})
    return found


def _rates(part: Shown, kind: str) -> Chart:
    words, x, y = RATES[kind]
    lines = _lines(part, partial(part.rates, kind), base_rates=kind == "pr", successful=True)
    title = _title(part, f"{words}, successful attacks")
    return Chart(f"{kind}-{part.name}", title, x, y, lines, 1.0)


def _title(part: Shown, what: str) -> str:
    """Words above a chart, with the number of images that it is drawn from."""
    sample = part.sample()
    return f"{part.title}: {what}" + (f" ({sample})" if sample else "")


def _risk(part: Shown, unit: str) -> Chart:
    lines = _lines(part, partial(part.paid, unit))
    without = part.paid(unit, part.detectors[0], "unaware", "cost_without")
    lines.insert(0, {"name": "no detector, unaware", "colour": PLAIN, "dashed": False, "points": without})
    shares = [point[0] for point in without]
    table = {f"{share:g}": _at(part, unit, share) for share in shares}
    columns = ("detector", "attacker", "cost", "no detector", "threshold", f"clean {unit}s rejected")
    return Chart(
        f"risk-{unit}-{part.name}", _title(part, f"cost by {unit} at the cheapest threshold"),
        f"share of attacked {unit}s", f"{COST}, by {unit}", lines, None, None, bend(shares), columns, table,
    )  # fmt: skip


def _at(part: Shown, unit: str, share: float) -> list[list[str]]:
    """The cheapest threshold of each detector at a share, and what it costs against either attacker."""
    rows = part.risk[(part.risk["unit"] == unit) & (part.risk["share"] == share)]
    return [
        [
            row["detector"],
            row["attacker"],
            f"{row['cost_with']:.3f}",
            f"{row['cost_without']:.3f}",
            EXTREMES.get(row["threshold"], f"{row['threshold']:.4g}"),
            f"{row['clean_rejected']:.0%}",
        ]
        for row in rows.to_dict("records")
    ]


def _thresholds(part: Shown) -> Chart:
    title = _title(part, f"cost by threshold where {part.share:.2g} of the images are attacked")
    lines = _lines(part, part.by_threshold)
    return Chart(f"threshold-{part.name}", title, FALSE_POSITIVES, f"{COST}, by image", lines)

"""Charts of calibration and decisions: reliability diagram, ROC and, for two classes, the decision curve."""

from collections.abc import Callable
from typing import Any

import numpy as np

from medrobust.core.decisions import mean_roc, net_benefit, treat_all
from medrobust.core.reliability import reliability_bins
from medrobust.report.charts.chart import Chart, colour
from medrobust.report.run import Run, Scored
from medrobust.report.tables.accuracy import TRAINING

#: False-positive rates at which ROC curves are evaluated, so that one pointer shows all models.
RATES = np.unique([0.01, *np.linspace(0, 1, 41)]).round(3)
#: Threshold probabilities of the decision curve.
THRESHOLDS = np.linspace(0.02, 0.98, 49).round(2)
#: Index of the colour of lines that are no model.
REFERENCE = 7
#: Resamples of the decision curve's intervals.
RESAMPLES = 500
#: Unit and name of a set of images, as in `Scored`.
Case = tuple[str, str]


def decision_charts(run: Run, confidence: float) -> list[Chart]:
    """The reliability diagram, the ROC and the decision curve of images and of patients, clean and attacked."""
    charts = []
    for case in dict.fromkeys((scored.unit, scored.images) for sets in run.scored.values() for scored in sets):
        found = [_reliability(run, case, confidence), _roc(run, case), _decision_curve(run, case, confidence)]
        charts += [chart for chart in found if chart]
    return charts


def _lines(run: Run, case: Case, points: Callable[[Scored], Any]) -> list[dict[str, Any]]:
    """One line per model that has points."""
    lines = []
    for model, sets in run.scored.items():
        for scored in sets:
            if (scored.unit, scored.images) == case and (found := points(scored)):
                name = f"{model[0]}, {TRAINING[model[1]]}"
                style = {"colour": colour(run, model[0]), "dashed": model[1] == "clean"}
                lines.append({"name": name, **style, "points": found})
    return lines


def _reference(name: str, points: list[list[float]]) -> dict[str, Any]:
    return {"name": name, "colour": REFERENCE, "dashed": True, "points": points}


def _reliability(run: Run, case: Case, confidence: float) -> Chart | None:
    def points(scored: Scored) -> list[list[float]]:
        bins = reliability_bins(scored.labels, scored.logprobs, scored.patients, confidence)
        return [[round(value, 4) for value in row] for row in bins] if len(bins) > 1 else []

    if not (lines := _lines(run, case, points)):
        return None
    least = min(point[0] for line in lines for point in line["points"])
    lines.append(_reference("calibrated", [[least, least], [1.0, 1.0]]))
    return Chart(_name("reliability", case), f"Reliability, {_words(case)}", "confidence", "accuracy", lines, 1.0)


def _roc(run: Run, case: Case) -> Chart | None:
    def points(scored: Scored) -> list[list[float]]:
        rates = mean_roc(scored.labels, np.exp(scored.logprobs), RATES)
        return [] if rates is None else [[float(x), round(float(y), 4)] for x, y in zip(RATES, rates, strict=True)]

    if not (lines := _lines(run, case, points)):
        return None
    lines.append(_reference("guessing", [[0.0, 0.0], [1.0, 1.0]]))
    what = f"class {run.classes()[1]}" if len(run.classes()) == 2 else "mean over classes, each against the rest"
    title = f"ROC, {_words(case)} ({what})"
    return Chart(_name("roc", case), title, "false-positive rate", "true-positive rate", lines, 1.0)


def _decision_curve(run: Run, case: Case, confidence: float) -> Chart | None:
    """Values below 0, worse than calling nobody positive, are drawn at 0."""
    if len(run.classes()) != 2:
        return None

    def points(scored: Scored) -> list[list[float]]:
        positive = scored.labels == 1
        if positive.all() or not positive.any():
            return []
        benefit = net_benefit(
            positive, np.exp(scored.logprobs[:, 1]), scored.patients, THRESHOLDS, resamples=RESAMPLES,
            confidence=confidence,
        )  # fmt: skip
        return _clipped(np.column_stack([THRESHOLDS, benefit]))

    if not (lines := _lines(run, case, points)):
        return None
    scored = (s for sets in run.scored.values() for s in sets if (s.unit, s.images) == case)
    positive = next(scored).labels == 1
    lines.append(
        _reference("all positive", _clipped(np.column_stack([THRESHOLDS, treat_all(positive, THRESHOLDS)])))
    )
    title = f"Decision curve, {_words(case)} (positive: {run.classes()[1]})"
    return Chart(_name("decision", case), title, "threshold probability", "net benefit", lines)


def _clipped(rows: np.ndarray) -> list[list[float]]:
    return [[float(x), *(max(round(float(y), 4), 0.0) for y in rest)] for x, *rest in rows]


def _name(kind: str, case: Case) -> str:
    unit, images = case
    return "-".join([kind, *(["patients"] if unit == "patient" else []), images.replace(" ε ", "-")])


def _words(case: Case) -> str:
    unit, images = case
    if images == "clean":
        return "clean images" if unit == "image" else "patients, clean images"
    return f"{unit}s under {images}"

"""Charts of accuracy against the radius of the attack, one per suite."""

from typing import Any

from medrobust.report.charts.chart import Chart, bend, colour, constant_floor
from medrobust.report.run import Evaluation, Model, Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.constant import ACCURACY
from medrobust.report.tables.table import NONE, number, ranged


def radius_label(norm: str) -> str:
    """The label of an axis of radii."""
    if norm == "patch":
        return "ε (share of the pixels that the patch covers)"
    return f"ε ({ {'Linf': 'L∞', 'L2': 'L2'}.get(norm, norm) } radius, pixel range [0, 1])"


def curve_points(run: Run, key: Evaluation) -> list[list[float]]:
    """[eps, accuracy, low, high] of an evaluation, starting with its clean accuracy at 0; [] if it is missing."""
    curve, record = run.attacks.curves.get(key), run.attacks.records.get(key)
    if curve is None or record is None:
        return []
    start = record["clean_accuracy"]
    low, high = run.clean_record(*key[:2]).get("accuracy_ci", (start, start))
    points = curve[["eps", "robust_accuracy", "low", "high"]].to_numpy().tolist()
    return [[0.0, start, low, high], *points]


def robust_curve(run: Run, suite: str, norm: str) -> Chart | None:
    """Accuracy against the radius, all models in one chart, with a slider over the radii."""
    series: list[dict[str, Any]] = []
    models: list[Model] = []
    for model, regime in run.models():
        if points := curve_points(run, (model, regime, suite)):
            name = f"{model}, {TRAINING[regime]}"
            dashed = regime == "clean"
            series.append({"name": name, "colour": colour(run, model), "dashed": dashed, "points": points})
            models.append((model, regime))
    if not series:
        return None
    radii = sorted({point[0] for line in series for point in line["points"]})
    table = {f"{radius:g}": [_row(run, model, suite, radius) for model in models] for radius in radii}
    return Chart(
        f"curve-{suite}", f"Accuracy under {suite}", radius_label(norm), "accuracy", series, 1.0,
        training_mark(run, norm), bend(radii),
        ("model", "training", "accuracy", "balanced accuracy", "relative to clean", "checklist"), table,
        constant_floor(run, ACCURACY),
    )  # fmt: skip


def training_mark(run: Run, norm: str) -> tuple[float, str] | None:
    """The radius of training with its label; None if there are several, or if the norm is another."""
    radii = set(run.training_eps().values())
    return (radii.pop(), "training ε") if norm == "Linf" and len(radii) == 1 else None


def _row(run: Run, model: Model, suite: str, radius: float) -> list[str]:
    key = (*model, suite)
    record = run.attacks.records[key]
    points = {point[0]: point for point in curve_points(run, key)}
    if radius not in points:
        return [model[0], TRAINING[model[1]], "not attacked here", *[NONE] * 3]
    _, accuracy, low, high = points[radius]
    balanced = {"0": record.get("clean_balanced_accuracy"), **record.get("robust_balanced_accuracy", {})}
    clean = points[0.0][1]
    share = f"{accuracy / clean:.0%}" if clean else NONE
    cells = [ranged(accuracy, low, high), number(balanced.get(f"{radius:g}")), share]
    return [model[0], TRAINING[model[1]], *cells, run.verdict_of(*key)]

"""Charts of corruptions and an attack on one axis, that of the L2 distance from the clean image."""

from typing import Any

from medrobust.report.charts.chart import Chart, bend, constant_floor
from medrobust.report.run import Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.constant import BALANCED
from medrobust.report.tables.corruptions import attack_points

#: Names of the adversary inside one corruption, and of the one who also chooses the corruption.
WORST, WORST_OF_ALL = "worst inside a corruption, by search", "worst of all, by search"


def corruption_charts(run: Run) -> list[Chart]:
    """One chart per model: corruptions and their worst cases, and an Linf suite.

    Each corruption is a line through its severities. The worst case of each, found by search, is a loose point;
    that of all corruptions together and the suite are dashed lines.
    """
    charts = []
    for model, record in run.corruptions.records.items():
        start, found = [0.0, record["balanced_accuracy"]], record["corruptions"]
        lines = {
            name.replace("_", " "): [start, *sorted(map(_point, part["severities"].values()))]
            for name, part in found.items()
        }
        if record["worst"]["l2"] is not None:
            lines[WORST] = [_point(part["worst"]) for part in found.values()]
            lines[WORST_OF_ALL] = [start, _point(record["worst"])]
        attack = f"attack {run.corruptions.suite}, ε·√n"
        if points := attack_points(run, model):
            lines[attack] = [start, *map(list, points)]
        series = [
            {"name": name, "colour": number, "dashed": name in (WORST_OF_ALL, attack), "loose": name == WORST,
             "points": [[round(x, 6), y] for x, y in points]}
            for number, (name, points) in enumerate(lines.items())
        ]  # fmt: skip
        title = f"Corruptions and attack: {model[0]}, {TRAINING[model[1]]} training"
        charts.append(
            Chart(
                f"corruptions-{model[0]}-{model[1]}", title, "L2 distance from the clean image (median)",
                "balanced accuracy", series, 1.0, bend=bend([x for points in lines.values() for x, _ in points]),
                floor=constant_floor(run, BALANCED),
            )
        )  # fmt: skip
    return charts


def _point(part: dict[str, Any]) -> list[float]:
    return [part["l2"], part["balanced_accuracy"]]

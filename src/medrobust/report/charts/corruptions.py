"""Charts of corruptions and an attack on one axis, that of the L2 distance from the clean image."""

from medrobust.report.charts.chart import Chart, bend
from medrobust.report.run import Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.corruptions import attack_points


def corruption_charts(run: Run) -> list[Chart]:
    """One chart per model: each corruption is a line through its severities, the Linf suite a dashed line."""
    charts = []
    for model, record in run.corruptions.records.items():
        clean = record["balanced_accuracy"]
        lines = {
            name.replace("_", " "): [
                (part["l2"], part["balanced_accuracy"]) for part in found["severities"].values()
            ]
            for name, found in record["corruptions"].items()
        }
        attack = attack_points(run, model)
        if attack:
            lines[f"attack {run.corruptions.suite}, ε·√n"] = attack
        series = [
            {"name": name, "colour": number, "dashed": bool(attack) and number == len(lines) - 1,
             "points": [[0.0, clean], *([round(x, 6), y] for x, y in sorted(points))]}
            for number, (name, points) in enumerate(lines.items())
        ]  # fmt: skip
        title = f"Corruptions and attack: {model[0]}, {TRAINING[model[1]]} training"
        distances = [x for points in lines.values() for x, _ in points]
        charts.append(
            Chart(
                f"corruptions-{model[0]}-{model[1]}", title, "L2 distance from the clean image (median)",
                "balanced accuracy", series, 1.0, bend=bend(distances),
            )
        )  # fmt: skip
    return charts

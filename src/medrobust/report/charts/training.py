"""Charts of training: loss and validation accuracy by epoch."""

from typing import Any

import pandas as pd

from medrobust.report.charts.chart import Chart, colour
from medrobust.report.run import REGIMES, Run
from medrobust.report.tables.accuracy import TRAINING


def training_charts(run: Run) -> list[Chart]:
    """Loss, and balanced accuracy on validation images (dashed: attacked), by epoch; one pair per regime."""
    charts = []
    for regime in REGIMES:
        history = run.training.history
        tables = {name: history[name, regime] for name in run.backbones if (name, regime) in history}
        if not tables:
            continue
        loss = [_line(run, name, name, table, "loss") for name, table in tables.items()]
        accuracy = [_line(run, name, name, table, "val_balanced_accuracy") for name, table in tables.items()]
        accuracy += [
            _line(run, name, f"{name}, attacked", table, "val_robust_balanced_accuracy", dashed=True)
            for name, table in tables.items()
            if "val_robust_balanced_accuracy" in table
        ]
        title = f"{TRAINING[regime].capitalize()} training"
        charts.append(Chart(f"loss-{regime}", f"{title}: loss", "epoch", "training loss (nats)", loss))
        charts.append(
            Chart(f"validation-{regime}", f"{title}: validation", "epoch", "balanced accuracy", accuracy, 1.0)
        )
    return charts


def _line(
    run: Run, backbone: str, name: str, table: pd.DataFrame, column: str, *, dashed: bool = False
) -> dict[str, Any]:
    known = table[["epoch", column]].dropna()
    points = [[int(epoch), round(float(value), 6)] for epoch, value in known.itertuples(index=False)]
    return {"name": name, "colour": colour(run, backbone), "dashed": dashed, "points": points}

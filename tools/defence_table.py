"""Print what each kind of training is worth, as a Markdown table: `python tools/defence_table.py`.

From the records in metrics/train and metrics/attack of a run of `dvc repro adv_train attack`, such as that of
presets/defences.yaml. One row per model: balanced accuracy on clean test images and under each suite at each
radius, and accuracy there with its interval over patients.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from medrobust.core.errors import UserError
from medrobust.core.params.schema import load_params
from medrobust.core.records import read_metrics
from medrobust.report.run import REGIMES
from medrobust.report.tables.table import Table, number, ranged, with_interval


def table(metrics: Path, models: list[tuple[str, str]], suites: list[str]) -> Table:
    """One row per model.

    Args:
        metrics: the folder of metrics.
        models: backbone and regime of every model of the run.
        suites: names, in the order of the columns.

    Raises:
        UserError: a model was not trained or not attacked.
    """
    rows: list[list[str]] = []
    columns = ["model", "training", "clean balanced accuracy"]
    for backbone, regime in models:
        trained = _read(metrics / "train" / f"{backbone}-{regime}.json")
        row = [backbone, regime, with_interval(trained, "balanced_accuracy")]
        for suite in suites:
            record = _read(metrics / "attack" / f"{backbone}-{regime}-{suite}.json")
            for eps, accuracy in record["robust_accuracy"].items():
                row += [number(record["robust_balanced_accuracy"][eps])]
                row += [ranged(accuracy, *record["robust_accuracy_ci"][eps])]
                if not rows:
                    columns += [f"{suite} ε {eps}: balanced accuracy", f"{suite} ε {eps}: accuracy"]
        rows.append(row)
    return Table("What each kind of training is worth", columns, rows)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(str(path), "is missing", "Run `dvc repro adv_train attack`")
    return read_metrics(path)


def main() -> None:
    """Print the table of the run whose params.yaml is here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", type=Path, default=Path("metrics"))
    args = parser.parse_args()
    params = load_params()
    models = [(name, regime) for name in params.models for regime in REGIMES]
    sys.stdout.write(table(args.metrics, models, list(params.attacks.suites)).markdown())


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))

"""Print accuracy against the constant c of Carlini & Wagner's attack, as CSV: `python -m tools.cw_curve`.

From the records of a run whose params.yaml has one suite per constant, each with a single attack
`{name: cw, c: ..., searches: 1}`. The attack has no ball: a radius of the suite only limits which results count,
so set one that no result exceeds. One row per model and constant.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

from medrobust.core.errors import UserError
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.params.schema import load_params
from medrobust.core.records import read_metrics
from medrobust.report.run import REGIMES


def constants(suites: dict[str, SuiteParams]) -> dict[float, str]:
    """Constant, rising -> suite with a single attack `cw` at this constant, without a search.

    Raises:
        UserError: there is no such suite, or two have the same constant.
    """
    found: dict[float, str] = {}
    for name, suite in suites.items():
        attack = suite.attacks[0]
        if (
            len(suite.attacks) == 1
            and attack.get("name") == "cw"
            and "c" in attack
            and attack.get("searches") == 1
        ):
            if (c := float(attack["c"])) in found:
                raise UserError(f"params.yaml: attacks.suites.{name}", f"has c {c:g}, as {found[c]}", "Remove one")
            found[c] = name
    if not found:
        remedy = "Add one per constant, with attacks: [{name: cw, c: 0.1, searches: 1}]"
        raise UserError("params.yaml: attacks.suites", "no suite has a single attack cw with one constant", remedy)
    return dict(sorted(found.items()))


def curve(metrics: Path, models: list[str], suites: dict[float, str]) -> list[dict[str, Any]]:
    """One row per model and constant, first the clean accuracy at c 0; at the suite's largest radius.

    Raises:
        UserError: a model was not attacked.
    """
    rows = []
    for model in models:
        for c, suite in suites.items():
            path = metrics / "attack" / f"{model}-{suite}.json"
            if not path.is_file():
                raise UserError(str(path), "is missing", "Run `dvc repro attack`")
            record = read_metrics(path)
            if c == next(iter(suites)):
                rows.append(_row(model, 0.0, record["clean_accuracy"], record["clean_accuracy_ci"]))
            eps = max(record["robust_accuracy"], key=float)
            rows.append(_row(model, c, record["robust_accuracy"][eps], record["robust_accuracy_ci"][eps]))
    return rows


def _row(model: str, c: float, accuracy: float, interval: list[float]) -> dict[str, Any]:
    low, high = interval
    return {"model": model, "c": c, "accuracy": accuracy, "low": low, "high": high}


def main() -> None:
    """Print the curve of the run whose params.yaml is here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", type=Path, default=Path("metrics"))
    args = parser.parse_args()
    params = load_params()
    models = [f"{name}-{regime}" for name in params.models for regime in REGIMES]
    rows = curve(args.metrics, models, constants(params.attacks.suites))
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))

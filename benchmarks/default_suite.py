"""What AutoAttack finds and a suite of the last run misses: `python benchmarks/default_suite.py`.

AutoAttack (standard, Croce & Hein 2020) attacks those test images that the suite did not fool at the training
radius; on the others it cannot lower robust accuracy. Prints a Markdown table with, for each model: test images,
images that stand after the suite, images of these that AutoAttack fools, and the suite's gradients on an image
that it never fooled. The default run takes half an hour on one core.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.params.schema import load_params
from medrobust.core.text import one_line
from medrobust.data.store import Subset, open_splits
from medrobust.models.checkpoint import load
from medrobust.report.tables.table import Table

COLUMNS = ["model", "images", "stand", "fooled by AutoAttack", "gradients per standing image"]


def compare(
    model: Path, attempts: pd.DataFrame, test: Subset, suite: SuiteParams, eps: float, seed: int
) -> list[str]:
    """The cells of a model's row, its name left out."""
    table = worst_case(attempts, list(suite.eps))
    near = min(suite.eps, key=lambda radius: abs(radius - eps))
    stands = table[(table["eps"] == near) & ~table["fooled"]]["id"]
    left = test.take(np.flatnonzero(np.isin(test.ids, stands)))
    never = attempts[attempts["id"].isin(table.loc[~table.groupby("id")["fooled"].transform("any"), "id"])]
    cost = never.groupby("id")["gradients"].sum().mean()
    fooled = 0
    if len(left):
        strong = SuiteParams(norm=suite.norm, eps=[near], attacks=[{"name": "autoattack"}])
        found = attack_suite(load(model), left, resolve_suite("autoattack", strong), seed=seed)
        fooled = int(worst_case(found, [near])["fooled"].sum())
    return [str(len(test)), str(len(left)), str(fooled), "–" if np.isnan(cost) else f"{cost:.0f}"]


def main() -> None:
    """Compare the suite's record of every model with AutoAttack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="white_box")
    parser.add_argument("--models", nargs="+", help="such as resnet34-adv; default: all that the run attacked")
    args = parser.parse_args()
    torch.set_num_threads(1)
    params, rows = load_params(), []
    test = open_splits("data/prepared", "data/split.csv").subset("test")
    names = args.models or [f"{backbone}-{regime}" for backbone in params.models for regime in ("clean", "adv")]
    for name in names:
        backbone, _, regime = name.rpartition("-")
        attempts = pd.read_parquet(Path("data/attacks") / name / f"{args.suite}.parquet")
        suite = params.attacks.suites[args.suite]
        cells = compare(
            Path("data/checkpoints") / backbone / regime, attempts, test, suite, params.adv.eps, params.seed
        )
        rows.append([name, *cells])
        print(one_line(" ".join(rows[-1])), flush=True)
    print(Table(f"{args.suite} and AutoAttack", COLUMNS, rows).markdown())


if __name__ == "__main__":
    main()

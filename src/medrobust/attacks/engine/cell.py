"""The command line and the inputs that all attack stages share; they differ in whose model they load."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medrobust.core.params.report import ReportParams
from medrobust.core.records import read_table, write_metrics, write_table
from medrobust.core.runtime import device, process_number, say

if TYPE_CHECKING:
    import torch
    from torch import nn


def parse(description: str | None) -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=description)
    for name in ("model", "prepared", "split", "suite", "records", "metrics", "curve"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--name", required=True)
    return parser.parse_args()


def attack_cell(
    load: "Callable[[Path, torch.device], nn.Module]", args: argparse.Namespace, *, seed: int, report: ReportParams
) -> None:
    """Run the suite on the test images.

    Args:
        load: gives the model of a folder, in eval mode on a device.
        args: as `parse` gives them.
        seed, report: of params.yaml.
    """
    from medrobust.attacks.engine.resolved import read_suite
    from medrobust.attacks.engine.run import run_suite
    from medrobust.data.store import ImageStore

    store, split = ImageStore.open(args.prepared), read_table(args.split, keep_default_na=False)
    run_suite(
        load(args.model, device()),
        store.subset(split, "test"),
        read_suite(args.suite),
        bit_depth=store.header.bit_depth,
        seed=seed,
        report=report,
        records=args.records,
        metrics_path=args.metrics,
        curve=args.curve,
        train=store.subset(split, "train"),
    )


def empty_cell(args: argparse.Namespace, reason: str) -> None:
    """Leave the outs of a model that cannot be: tables without rows, and `impossible` in the metrics.

    Args:
        args: as `parse` gives them.
        reason: why there is no such model.
    """
    import pandas as pd

    from medrobust.attacks.engine.attempts import table_of

    if process_number() > 0:
        return
    say(f"{args.name}: nothing to attack: {reason}")
    write_table(args.records, table_of([]))
    write_table(args.curve, pd.DataFrame(columns=["eps", "robust_accuracy"]))
    write_metrics(args.metrics, {"impossible": reason}, {"verdict": "impossible"})

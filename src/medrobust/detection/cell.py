"""The command line and the inputs that both detection stages share; they differ in whose model they load."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medrobust.core.params.detection import DetectParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import read_json, read_table
from medrobust.core.runtime import device

if TYPE_CHECKING:
    import torch
    from torch import nn


def parse(description: str | None) -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=description)
    for name in ("model", "prepared", "split", "plan", "guard", "scores", "metrics", "plots"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--name", required=True)
    return parser.parse_args()


def detect_cell(
    load: "Callable[[Path, torch.device], nn.Module]", args: argparse.Namespace, *, weights: str, seed: int,
    params: DetectParams, report: ReportParams,
) -> None:  # fmt: skip
    """Fit on train, choose thresholds on val, test on test.

    Args:
        load: gives the model of a folder, in eval mode on a device.
        args: as `parse` gives them.
        weights: sha256 of the model's weights.
        seed, params, report: of params.yaml; `params` is its block `detect`.
    """
    from medrobust.data.store import ImageStore
    from medrobust.detection.fitting import Splits
    from medrobust.detection.run import DetectionOutputs, run_detection

    store, table = ImageStore.open(args.prepared), read_table(args.split, keep_default_na=False)
    train, val, test = (store.subset(table, name) for name in ("train", "val", "test"))
    run_detection(
        load(args.model, device()),
        Splits(train, val, test, seed),
        read_json(args.plan),
        DetectionOutputs(args.guard, args.scores, args.metrics, args.plots),
        ordered=store.header.ordered,
        params=params,
        report=report,
        weights=weights,
    )

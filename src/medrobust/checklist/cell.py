"""The command line and the inputs of the stages that check a vote; they differ in which one is in force."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medrobust.core.params.attacks import AttacksParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import read_table
from medrobust.core.runtime import device

if TYPE_CHECKING:
    import torch
    from torch import nn


def parse(description: str | None) -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=description)
    for name in ("model", "prepared", "split", "suites", "records", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


def check_vote(
    load: "Callable[[Path, torch.device], nn.Module]",
    members: "Callable[[Path, torch.device], Mapping[str, nn.Module]]",
    args: argparse.Namespace,
    *,
    adversarial: bool,
    eps: float,
    params: AttacksParams,
    report: ReportParams,
    seed: int,
) -> None:
    """Check the evaluations of a vote; its members are its siblings.

    Args:
        load: gives the vote of a folder, in eval mode on a device.
        members: gives all its members by name, those without a say too.
        args: as `parse` gives them.
        adversarial: whether the members were trained on attacked images.
        eps, params, report, seed: as of `check_model`.

    Raises:
        UserError: the verdict is `invalid` and `params.on_invalid` is `fail`.
    """
    from medrobust.checklist.run import Subject, check_model, conclude, read_evaluations
    from medrobust.data.store import ImageStore

    store = ImageStore.open(args.prepared)
    suites, tables = read_evaluations(list(params.suites), args.suites, args.records)
    subject = Subject(
        model=load(args.model, device()),
        subset=store.subset(read_table(args.split, keep_default_na=False), "test"),
        suites=suites,
        attempts=tables,
        adversarial=adversarial,
        siblings=members(args.model, device()),
        bit_depth=store.header.bit_depth,
    )
    found = check_model(subject, eps=eps, params=params, report=report, seed=seed)
    conclude({args.metrics: found}, params.on_invalid)

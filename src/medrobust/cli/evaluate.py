"""`medrobust evaluate`: a finished model on labelled images of other origin."""

import json
import sys
from pathlib import Path

import click

from medrobust.cli.options import (
    DEVICE,
    MODEL,
    OUT,
    PATH,
    SEED,
    check_writable,
    counted,
    finish,
    library_output_on_stderr,
    opened,
    say,
)


@click.command(
    epilog="Example: medrobust evaluate models/resnet34/adv --data other-hospital.csv --suite white_box"
)
@MODEL
@click.option(
    "--data", type=PATH, required=True, help="Table (path, label, patient), or folder with class folders."
)
@click.option(
    "--suite", multiple=True, help="Suite of the model's folder, or `none`; may be repeated. Default: all."
)
@click.option(
    "--map", "mapping", multiple=True, metavar="LABEL=CLASS", help="A label of the data that is a class."
)
@click.option("--guard", help="Folder of another guard, or `none`. Default: the one in the model's folder.")
@OUT
@DEVICE
@SEED
def evaluate(
    model: Path, data: Path, suite: tuple[str, ...], mapping: tuple[str, ...], guard: str | None, out: Path | None,
    device: str | None, seed: int,
) -> None:  # fmt: skip
    """Evaluate a finished model, without training: clean, under suites of attacks, and its detectors.

    Prints one JSON object, with intervals over patients.
    """
    from medrobust.core.records import write_json
    from medrobust.inference.evaluate import evaluate_model

    check_writable(out)
    labels = dict(_pair(entry) for entry in mapping)
    loaded = opened(model, guard, None, device)
    suites = None if not suite else [name for name in suite if name != "none"]
    with library_output_on_stderr():
        record = evaluate_model(loaded, data, suites, labels=labels, seed=seed)
    for file, reason in record["skipped"].items():
        say(f"{file}: {reason}")
    if out:
        write_json(out, record, digits=6)
    else:
        json.dump(record, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    found = f"{counted(record['n'], 'image')} of {counted(record['patients'], 'patient')}"
    finish(f"evaluated {found}", len(record["skipped"]))


def _pair(entry: str) -> tuple[str, str]:
    label, sign, name = entry.rpartition("=")
    if not sign:
        raise click.BadParameter(f"{entry!r} has no `=`", param_hint="--map")
    return label, name

"""`medrobust predict`: the answer of a model for each image, and for each patient."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medrobust.cli.options import (
    COLOUR,
    DEVICE,
    FILES,
    MODEL,
    OUT,
    PATH,
    SEED,
    answers_to,
    bar,
    check_writable,
    counted,
    finish,
    opened,
    picture_name,
    say,
)

if TYPE_CHECKING:
    from medrobust.data.inputs import Fault, InputImage, Inputs
    from medrobust.inference.predict import Prediction

#: Columns before the probabilities.
FIRST = ("unit", "file", "slice", "patient", "images", "label", "rejected", "reason", "score", "threshold")


@click.command(
    epilog="Example: medrobust predict models/resnet34/adv scan.png series/ --out answers.csv --maps maps/"
)
@MODEL
@FILES
@OUT
@click.option(
    "--format", "form", type=click.Choice(["csv", "json"]), help="Default: csv, or by the ending of --out."
)
@click.option("--maps", type=PATH, help="Write Grad-CAM overlays for the answered class into this folder.")
@click.option("--guard", help="Folder of another guard, or `none`. Default: the one in the model's folder.")
@click.option("--detector", help="Detector of the guard that rejects. Default: its first.")
@COLOUR
@DEVICE
@SEED
def predict(
    model: Path, files: tuple[Path, ...], out: Path | None, form: str | None, maps: Path | None, guard: str | None,
    detector: str | None, colour_as_grey: bool, device: str | None, seed: int,
) -> None:  # fmt: skip
    """Answer each image of FILES: pictures, NIfTI volumes, DICOM images or series, npz, folders, CSV tables.

    One row per image: class, probabilities, whether it is rejected, with score, threshold and reason. Then one row
    per patient, volume or series. A table has the column `path` and, if known, `patient`. See docs/predict.md.
    """
    from medrobust.data.inputs import Fault
    from medrobust.inference.predict import answer

    check_writable(out, maps)
    loaded = opened(model, guard, detector, device)
    if loaded.guard is None and guard != "none":
        say("the model has no guard: no image is rejected")
    inputs = loaded.reader(colour_as_grey=colour_as_grey).find(files)
    if inputs.ignored:
        say(f"left out what is no image: {counted(len(inputs.ignored), 'file')}, the first is {inputs.ignored[0]}")
    as_json = form == "json" or (form is None and out is not None and out.suffix in (".json", ".jsonl"))
    columns = [
        *FIRST,
        *(f"p_{name}" for name in loaded.classes),
        "calibrated",
        *(["map"] if maps else []),
        "model",
    ]
    seen: deque[InputImage] = deque()
    counts = {"image": 0, "patient": 0}
    faults = 0
    draw = _drawer(loaded) if maps else None
    with answers_to(out, columns, as_json=as_json) as answers:
        for one in bar(answer(loaded, _remembered(inputs, seen), seed=seed), "predict"):
            if isinstance(one, Fault):
                faults += 1
                say(f"{one.file}: {one.reason}")
                continue
            row = _row(one, loaded.sha256)
            if one.unit == "image":
                image = seen.popleft()
                if maps and draw:
                    row["map"] = str(maps / picture_name(counts["image"], one.file, one.slice, "map"))
                    draw(image, max(one.probabilities, key=lambda name: one.probabilities[name])).save(row["map"])
            counts[one.unit] += 1
            answers.write(row)
    patients = f" and {counted(counts['patient'], 'patient')}" if counts["patient"] else ""
    finish(f"answered {counted(counts['image'], 'image')}{patients}", faults)


def _remembered(inputs: "Inputs", seen: "deque[InputImage]") -> "Iterator[InputImage | Fault]":
    """The inputs; each image is kept until its answer comes."""
    from medrobust.data.inputs import InputImage

    for one in inputs.read():
        if isinstance(one, InputImage):
            seen.append(one)
        yield one


def _drawer(loaded: Any) -> Any:
    from medrobust.inference.pictures import Maps

    return Maps(loaded).draw


def _row(one: "Prediction", model: str) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(one, name) for name in FIRST}
    return {**row, "probabilities": one.probabilities, "calibrated": one.calibrated, "model": model}

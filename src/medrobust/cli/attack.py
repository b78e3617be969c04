"""`medrobust attack`: the same image, attacked."""

from pathlib import Path
from typing import Any

import click

from medrobust.cli.options import (
    COLOUR,
    DEVICE,
    FILES,
    MODEL,
    OUT,
    PATH,
    SEED,
    Fraction,
    answers_to,
    bar,
    check_writable,
    counted,
    finish,
    library_output_on_stderr,
    opened,
    picture_name,
    say,
)

COLUMNS = (
    "file", "slice", "label", "clean_label", "success", "eps", "attack", "attacked_label", "probability", "suite",
    "norm", "picture", "change_factor", "model",
)  # fmt: skip


@click.command(
    epilog="Example: medrobust attack models/resnet34/clean scan.png --suite white_box --eps 8/255 --pictures out/"
)
@MODEL
@FILES
@click.option("--suite", help="Suite of attacks of the model's folder. Default: the first.")
@click.option(
    "--eps", type=Fraction(), multiple=True, help="Radius; may be repeated. Default: those of the suite."
)
@click.option("--label", help="True class of the images. Default: the answer of the model for each.")
@click.option("--pictures", type=PATH, help="Write image, attacked image and amplified change into this folder.")
@OUT
@click.option("--format", "form", type=click.Choice(["csv", "json"]), default="csv", show_default=True)
@COLOUR
@DEVICE
@SEED
def attack(
    model: Path, files: tuple[Path, ...], suite: str | None, eps: tuple[float, ...], label: str | None,
    pictures: Path | None, out: Path | None, form: str, colour_as_grey: bool, device: str | None, seed: int,
) -> None:  # fmt: skip
    """Attack each image of FILES with a suite of attacks, at every radius until the answer changes.

    One row per image: whether an attack succeeds, the smallest radius at which one does, and the answer then.
    """
    from medrobust.data.inputs import Fault
    from medrobust.inference.attack import attack_inputs
    from medrobust.inference.images import find_suite
    from medrobust.inference.pictures import draw_attack

    check_writable(out, pictures)
    loaded = opened(model, "none", None, device)
    chosen = find_suite(loaded, suite, eps)
    inputs = loaded.reader(colour_as_grey=colour_as_grey).find(files)
    count, faults = 0, 0
    with answers_to(out, COLUMNS, as_json=form == "json") as answers:
        for one in bar(inputs.read(), "attack"):
            if isinstance(one, Fault):
                faults += 1
                say(f"{one.file}: {one.reason}")
                continue
            with library_output_on_stderr():
                (result,) = attack_inputs(loaded, [one], chosen, label, seed)
            row: dict[str, Any] = {name: getattr(result, name) for name in COLUMNS[:9]}
            row |= {"suite": chosen["name"], "norm": chosen["norm"]}
            if pictures:
                picture, factor = draw_attack(result)
                path = pictures / picture_name(count, one.file, one.slice, "attack")
                picture.save(path)
                row |= {"picture": str(path), "change_factor": round(factor, 3)}
            count += 1
            answers.write({**row, "model": loaded.sha256})
    finish(f"attacked {counted(count, 'image')}", faults)

"""`medrobust export`: a model as a file for other software, compared with the original."""

from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.command(epilog="Example: medrobust export models/resnet34/adv exported/resnet34-adv")
@click.argument("model", type=PATH)
@click.argument("out", type=PATH)
@click.option("--to", type=click.Choice(["onnx"]), default="onnx", show_default=True, help="Format of the file.")
@click.option("--prepared", type=PATH, default="data/prepared", show_default=True, help="Images to compare on.")
@click.option(
    "--split", type=PATH, default="data/split.csv", show_default=True, help="Table with the test images."
)
@click.option(
    "--suites", type=PATH, default="data/resolved/suites", show_default=True, help="Folder of resolved suites."
)
@click.option(
    "--images", type=click.IntRange(min=1), default=32, show_default=True,
    help="Test images (or patients of equal size) to compare on.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the attacks.")
def export(
    model: Path, out: Path, to: str, prepared: Path, split: Path, suites: Path, images: int, seed: int
) -> None:
    """Write MODEL into the folder OUT: model.onnx with the preprocessing inside, and a card.

    The exported model is run on clean and attacked test images. Nothing is written if a probability differs from
    the original by more than 0.001. Needs the extra: pip install medrobust[onnx].
    """
    from medrobust.core.runtime import limit_threads

    limit_threads()
    from medrobust.export.run import ExportData, export_onnx

    for row in export_onnx(model, out, ExportData(prepared, split, suites, images, seed)):
        click.echo(
            f"{row.images}: {row.same} of {row.n} answers are the same, largest difference {row.largest:.1e}, "
            f"accuracy {row.accuracy:.3f} (original {'under attack' if row.attacked else 'clean'}), "
            f"{row.exported_accuracy:.3f} (exported)"
        )
    click.echo(f"wrote {out}")

"""`medrobust app`: a local page."""

from pathlib import Path

import click

from medrobust.cli.options import DEVICE, PATH


@click.command(epilog="Example: medrobust app models/resnet34/clean models/resnet34/adv")
@click.argument("models", type=PATH, nargs=-1)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="Of 127.0.0.1; 0: any free one."
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
@DEVICE
def app(models: tuple[Path, ...], port: int, open_browser: bool, device: str | None) -> None:
    """Serve a page on this machine: drop a file, see answers of MODELS (default: all in models/), attack it.

    Nobody outside this machine can open the page, and it requests nothing from outside. What is uploaded is held
    in memory only. Needs the extra `app`.
    """
    from medrobust.app.serve import run_app

    run_app(models, port, device, open_browser=open_browser)

"""`medrobust cases`: the page of single images."""

from pathlib import Path

import click

from medrobust.cli.options import PATH, check_writable, counted, say


@click.command(epilog="Example: medrobust cases cases.html")
@click.argument("out", type=PATH)
@click.option(
    "--cases", "collected", type=PATH, default="data/cases.json", show_default=True,
    help="File that the stage `cases` wrote.",
)  # fmt: skip
@click.option("--title", default="medrobust", show_default=True, help="Title of the page.")
def cases(out: Path, collected: Path, title: str) -> None:
    """Write the page of single images, as in the report, into the file OUT: one file that opens without a network.

    It shows images of the data: share it as you would share them.
    """
    from medrobust.core.errors import UserError
    from medrobust.core.records import atomic_file, read_json
    from medrobust.report.cases.render import render_cases

    found = read_json(collected) if collected.is_file() else {}
    if not isinstance(found, dict) or not found.get("cases"):
        problem = "contains no images" if collected.is_file() else "no such file"
        remedy = "Set report.cases above 0 and report.pictures to true, and run `dvc repro cases`"
        raise UserError(str(collected), problem, remedy)
    check_writable(out)
    with atomic_file(out) as temporary:
        temporary.write_text(render_cases(found, title, linked=False), encoding="utf-8")
    say(f"wrote {out}: {counted(len(found['cases']), 'image')}")

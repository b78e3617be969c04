"""The command `medrobust` and the list of its commands."""

import sys
from importlib import import_module

import click

from medrobust.core.disk import disk_errors
from medrobust.core.errors import UserError
from medrobust.core.text import one_line

#: Commands in the order of `--help`. Each is a click command of this name in the module of this name.
COMMANDS = ("predict", "attack", "evaluate", "export", "cases", "app", "doctor")


class Commands(click.Group):
    """Imports a command when it is asked for, and prints errors that the user can fix in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"medrobust.cli.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            with disk_errors("the output"):
                return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(one_line(str(error))) from None


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="medrobust")
def commands() -> None:
    """Use a trained medical image classifier: predict, attack, evaluate.

    A MODEL is a folder such as models/resnet34/adv, which `dvc repro publish` writes and `dvc get` brings. Answers
    go to stdout, messages and progress to stderr. Exit code 0: every file was answered; 1: some were not, or the
    command failed; 2: wrong usage.

    For research only: no answer of these commands is a diagnosis.
    """


def main() -> None:
    """Run the command line."""
    commands(prog_name="medrobust" if sys.argv[0].endswith("medrobust") else "python -m medrobust")

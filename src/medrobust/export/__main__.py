"""`python -m medrobust.export` is the command `medrobust export`."""

import click

from medrobust.cli.export import export
from medrobust.core.errors import UserError
from medrobust.core.text import one_line

if __name__ == "__main__":
    try:
        export(prog_name="python -m medrobust.export", standalone_mode=False)
    except UserError as error:
        raise SystemExit(one_line(str(error))) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None

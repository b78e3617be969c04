"""Local files that the user names: paths with variables, and hashes."""

import hashlib
import os
from pathlib import Path

from medrobust.errors import UserError


def local_path(path: str | None) -> Path:
    """`data.path` with `~` and `$VARIABLES` in place.

    Raises:
        UserError: it is null, names an unset variable, or nothing is there.
    """
    where = "params.yaml: data.path"
    if path is None:
        raise UserError(where, "null", "Give the path of a zip, a tar or a folder")
    expanded = os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111
    if "$" in expanded:
        variable = expanded[expanded.index("$") :].split("/")[0]
        raise UserError(where, f"{path}: {variable} is not set", f"export {variable[1:].strip('{}')}=<folder>")
    if not Path(expanded).exists():
        raise UserError(where, f"{expanded}: no such file", "Give the path of a zip, a tar or a folder")
    return Path(expanded)


def check_sha256(path: Path, expected: str | None) -> str:
    """The file's sha256.

    Raises:
        UserError: it is not the expected one.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and found != expected.lower():
        remedy = "The file is another one or damaged: fetch it again, or correct data.sha256"
        raise UserError(path.name, f"sha256 is {found}, data.sha256 says {expected}", remedy)
    return found

"""Whether DVC's remotes can be used on this machine. DVC itself only knows their names until it copies files."""

import re
from pathlib import Path
from typing import Any

from medrobust.core.errors import UserError

#: Parts of an address that may hold a password: the user, and what follows a question mark.
SECRET_PARTS = (re.compile(r"(?<=//)[^/@\s]+@"), re.compile(r"\?[^\s'\"]*"))
#: Settings of a remote whose values are no secret, though they may appear in a message.
HARMLESS = {"url", "user", "region", "endpointurl", "port", "profile", "auth", "method", "jobs", "version_aware"}

#: Protocols of which the cause of a missing file says why.
CAUSES = ("http", "https", "s3")
#: The status of a file that an HTTP server does not have.
NOT_FOUND = 404


def held(repo: Any, name: str, hashes: list[str]) -> set[str]:
    """Those of the hashes whose files a remote has; without any it is only asked whether it answers.

    A folder on another machine and S3 without keys are found before a file is copied.

    Args:
        repo: an open `dvc.repo.Repo`.

    Raises:
        UserError: the remote cannot be used here. The message has no user, password or key.
    """
    where, settings = f"the remote {name}", dict(repo.config["remote"].get(name, {}))
    try:
        folder = Path(str(repo.cloud.get_remote(name).path))
        remote = repo.cloud.get_remote_odb(name)
        if remote.fs.protocol == "local" and not folder.is_dir():
            found = f"is the folder {folder}, which does not exist here"
            raise UserError(where, found, "Mount it, or change the remote (`dvc remote modify`)")
        _ask(remote, next(iter(hashes), "0" * 32))
        return set(remote.oids_exist(hashes)) if hashes else set()
    except UserError:
        raise
    except Exception as error:  # each kind of remote raises errors of its own
        cause = without_secrets(" ".join(str(error).split()) or type(error).__name__, settings)
        raise UserError(where, f"cannot be used here: {cause}", "Check its address and its keys") from None


def _ask(remote: Any, first: str) -> None:
    """Ask for one file, which may be missing. `exists` would take missing keys and denied access for "no" too."""
    try:
        remote.fs.info(remote.oid_to_path(first))
    except FileNotFoundError as error:
        # Over HTTP, everything ends as this error: no answer, a wrong password. On S3, a missing bucket does.
        cause = error.__cause__
        if remote.fs.protocol in CAUSES and cause and getattr(cause, "status", None) != NOT_FOUND:
            raise cause from None


def without_secrets(text: str, settings: dict[str, Any]) -> str:
    """A message or an address without users, passwords, signatures, and the secret settings of a remote."""
    for name, value in settings.items():
        if name not in HARMLESS and isinstance(value, str) and value:
            text = text.replace(value, "***")
    for part in SECRET_PARTS:
        text = part.sub("", text)
    return text

"""Pseudonyms of patients: a running number, and a keyed hash whose secret is outside git (docs/data.md)."""

import hmac
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from medrobust.core.errors import UserError
from medrobust.core.runtime import repository, say

#: Holds the secret; without it, the secret is in the file `KEY_FILE` at the top of the clone.
KEY_VARIABLE = "MEDROBUST_PSEUDONYM_KEY"
#: Ignored by git, readable by its owner only, created when it is first needed.
KEY_FILE = ".pseudonym-key"
#: A shorter secret could be guessed.
MIN_CHARACTERS = 16
OTHERS = 0o077


def pseudonyms(patients: Sequence[str]) -> list[str]:
    """Replace each patient id by `P<number>-<hash>`; an empty id (no patient id) stays empty.

    Numbers follow the first appearance. So the order of pseudonyms, and with it the split and every other result,
    does not depend on the secret. The hash (HMAC-SHA256, RFC 2104, first 48 bits) is the same for the same id in
    other data, for whoever has the same secret. Without the secret, ids cannot be tested against it.

    Raises:
        UserError: the secret is too short, or its file cannot be used or is readable by others.
    """
    known = list(dict.fromkeys(patient for patient in patients if patient))
    if not known:
        return list(patients)
    key = _secret().encode()
    names = {
        patient: f"P{number:06d}-{hmac.new(key, patient.encode(), 'sha256').hexdigest()[:12]}"
        for number, patient in enumerate(known, start=1)
    }
    return [names.get(patient, "") for patient in patients]


def _secret() -> str:
    if KEY_VARIABLE in os.environ:
        return _long_enough(os.environ[KEY_VARIABLE], KEY_VARIABLE)
    path = (repository() / KEY_FILE).absolute()
    try:
        if not path.exists():
            _create(path)
        mode, content = path.stat().st_mode, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(path), f"cannot be used ({error})", f"Fix the file, or set {KEY_VARIABLE}") from None
    if os.name == "posix" and mode & OTHERS:
        raise UserError(str(path), "is readable by others", f"Run chmod 600 {KEY_FILE}, or set {KEY_VARIABLE}")
    return _long_enough(content, str(path))


def _create(path: Path) -> None:
    """Write a new secret; if another process is faster, its secret stays."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f"{KEY_FILE}.") as file:  # has mode 0600
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        try:
            os.link(file.name, path)
        except FileExistsError:
            return
    say(f"prepare: {path} is new; it holds the secret of the patients' pseudonyms, keep it out of git")


def _long_enough(secret: str, where: str) -> str:
    if len(secret := secret.strip()) < MIN_CHARACTERS:
        found = f"the secret has {len(secret)} characters"
        raise UserError(
            where, found, f"Use at least {MIN_CHARACTERS} random ones, for example of openssl rand -hex 32"
        )
    return secret

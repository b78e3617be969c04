"""What a result was made on: hashes of weights, images, split and suite.

A result carries them, and readers compare them with what they have, so that a record of another model is not taken
for this one's, whatever dvc.lock says of its file.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medrobust.core.errors import UserError
from medrobust.core.records import file_hash

#: Key of a metrics record, and attribute of a Parquet table (pandas stores attributes with it).
MADE_ON = "made_on"
#: The key of a hash that differs -> what the result was made on, in words.
OTHER = {
    "weights": "weights other than this model's", "data": "other images", "split": "another split",
    "suite": "another suite of attacks", "suites": "another suite of attacks",
    "models": "weights other than those of this run's models",
}  # fmt: skip
#: Key of a metrics record: hashes of the tables for plots that its stage wrote beside it, by the name of the file.
TABLES = "tables"
REMEDY = "Run `dvc repro --force` on the stage that writes it"
#: A hash, hashes by name (of several suites or models), or None if it is unknown.
Hash = str | Mapping[str, str] | None


def suite_hash(suite: Mapping[str, Any]) -> str:
    """Hash of a resolved suite (the weights of its surrogates included), whatever the code of its attacks."""
    content = {key: value for key, value in suite.items() if key != "code"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def table_hashes(*paths: Path) -> dict[str, str]:
    """Hashes of tables, which as CSV cannot hold what they were made on, by the name of the file."""
    return {path.name: file_hash(path) for path in paths}


def difference(found: Mapping[str, Any] | None, expected: Mapping[str, Hash]) -> str | None:
    """What a result was made on that is not as expected, in words; None if all is.

    `found` is the result's own entry. An expected hash that is None is unknown and not compared. Of hashes by name
    those that both have are compared.
    """
    if found is None:
        return "does not say what it was made on"
    wrong = [key for key, value in expected.items() if value is not None and not _same(found.get(key), value)]
    return f"was made on {OTHER[wrong[0]]}" if wrong else None


def _same(found: Any, expected: str | Mapping[str, str]) -> bool:
    if isinstance(expected, str):
        return bool(found == expected)
    return isinstance(found, Mapping) and all(found[name] == expected[name] for name in found.keys() & expected)


def check_made_on(path: Path, found: Mapping[str, Any] | None, expected: Mapping[str, Hash]) -> None:
    """Compare what a result in a file was made on.

    Raises:
        UserError: it is not as expected.
    """
    if reason := difference(found, expected):
        raise UserError(str(path), reason, REMEDY)

"""What a result was made on: hashes of weights, images, split and suite.

Each result holds these hashes, and its readers compare them with those of the run. So a record of another model is
recognised even if dvc.lock agrees with its file.
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
    "external": "other external images",
    "suite": "another suite of attacks", "suites": "another suite of attacks",
    "models": "weights other than those of this run's models",
}  # fmt: skip
#: Key of a metrics record: hashes of the tables for plots that its stage wrote beside it, by the name of the file.
TABLES = "tables"
REMEDY = "Run `dvc repro --force` on the stage that writes it"
#: A hash, hashes by name (of several suites or models), or None if it is unknown.
Hash = str | Mapping[str, str] | None


def suite_hash(suite: Mapping[str, Any]) -> str:
    """Hash of a resolved suite, with the weights of its surrogates but without the code of its attacks."""
    content = {key: value for key, value in suite.items() if key != "code"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def table_hashes(*paths: Path) -> dict[str, str]:
    """Name of the file -> its hash, for the record beside the tables: CSV cannot hold what a table was made on."""
    return {path.name: file_hash(path) for path in paths}


def difference(found: Mapping[str, Any] | None, expected: Mapping[str, Hash]) -> str | None:
    """The first difference between what a result was made on and what is expected, in words; None without one.

    `found` is the result's own entry. An expected hash that is None is unknown and not compared. Hashes by name
    are compared for the names that both have.
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
    """Refuse a result in a file that was made on other hashes than expected.

    Raises:
        UserError: a hash differs, or the result has none.
    """
    if reason := difference(found, expected):
        raise UserError(str(path), reason, REMEDY)

"""Files of the data that do not become images: counted and named, so that nothing vanishes without a word."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from pathlib import PurePosixPath

#: Reasons.
NO_ROW, IGNORED = "no row in the table", "data.ignore"
#: Names that are kept per reason.
NAMED = 5


@dataclass(frozen=True)
class Unused:
    """Files that are not read for one reason."""

    reason: str
    count: int
    first: list[str]  # the first `NAMED` names


def unused(reason: str, names: Sequence[str]) -> list[Unused]:
    """The entry of these files; none if there are none."""
    return [Unused(reason, len(names), list(names[:NAMED]))] if names else []


def matching(names: Iterable[str], patterns: list[str]) -> list[str]:
    """The names that match a pattern of `data.ignore`; case does not count, and `*` also matches `/`."""
    if not patterns:
        return []
    pattern = re.compile("|".join(translate(pattern.lower()) for pattern in patterns))
    return [name for name in names if pattern.match(name.lower())]


def by_ending(names: Iterable[str]) -> list[Unused]:
    """Files that are not images, by their ending."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(PurePosixPath(name).suffix.lower() or "none", []).append(name)
    return [entry for ending, found in sorted(groups.items()) for entry in unused(f"ending {ending}", found)]

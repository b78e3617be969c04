"""Files of the data that do not become images: they are counted and named, so that none is dropped silently."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from pathlib import PurePosixPath

from medrobust.core.errors import UserError
from medrobust.data.sources.files import Files

#: Reasons.
NO_ROW, IGNORED = "no row in the table", "data.ignore"
#: Number of names that are kept per reason.
NAMED = 5
GZ = re.compile(r"\.gz$", re.IGNORECASE)
#: Sources that read files of other endings than `archive` does.
READERS = {
    ".dcm": "dicom", ".dicom": "dicom", ".ima": "dicom", ".nii": "nifti", ".mgh": "nifti", ".mgz": "nifti",
    ".parquet": "huggingface", ".npz": "medmnist",
}  # fmt: skip


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


def check_not_empty(found: Sequence[str], files: Files, what: str, suffixes: Iterable[str]) -> None:
    """Raise a UserError if `found` is empty: the data have no file that the source reads."""
    if found:
        return
    endings = Counter(PurePosixPath(GZ.sub("", name)).suffix.lower() or "none" for name in files.names)
    counts = ", ".join(f"{count} with ending {ending}" for ending, count in endings.most_common())
    source = next((READERS[ending] for ending, _ in endings.most_common(1) if ending in READERS), None)
    remedy = f"Use files with the suffix {', '.join(sorted(suffixes))}, or another data.source"
    contained = f"contains no {what}{f', but other files ({counts})' if counts else ''}"
    raise UserError(str(files.path), contained, f"Set data.source: {source}" if source else remedy)

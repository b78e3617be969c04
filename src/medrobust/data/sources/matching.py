"""Find the files that the paths in a table stand for."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from itertools import takewhile

EXTENSION = re.compile(r"(?<=[^/])\.[^./]+(\.gz)?$", re.IGNORECASE)


class FileFinder:
    """Finds the files (or folders) that a path in a table may stand for; one that matches exactly comes first.

    Otherwise these match, without regard to case only if none has the same case: a file whose path ends with the
    path in the table (the table names no or fewer folders), and a file whose path is that in the table without
    outer folders which all paths share (the table was made for a folder further up). The extension of the file may
    be missing in the table.
    """

    def __init__(self, names: Iterable[str], paths: Iterable[str], base: str = "") -> None:
        """Index `names` for the given paths; they may also be relative to the folder `base`."""
        self._base = normalized_path(base)
        self._exact = {normalized_path(name): name for name in names}
        self._whole: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._ends: dict[str, list[tuple[str, str]]] = defaultdict(list)
        folders = [normalized_path(path).split("/")[:-1] for path in paths if path]
        depths = {len(parts) + 1 for parts in folders}
        # Number of outer folders that all paths share.
        levels = zip(*folders, strict=False)
        self._shared = len(list(takewhile(lambda level: len({*level}) == 1, levels)))
        for path, name in self._exact.items():
            parts = path.split("/")
            for index, ends in ((self._whole, [path]), (self._ends, _ends(parts, depths))):
                for spelling in {*ends, *map(without_extension, ends)}:
                    index[spelling.casefold()].append((spelling, name))

    def find(self, path: str) -> list[str]:
        """The names of all files that match; none or several if the path is not clear."""
        path = normalized_path(path)
        for exact in (f"{self._base}/{path}" if self._base else path, path):
            if exact in self._exact:
                return [self._exact[exact]]
        if found := _pick(self._ends, path):
            return found
        parts = path.split("/")
        tails = ("/".join(parts[start:]) for start in range(1, self._shared + 1))
        return next((found for tail in tails if (found := _pick(self._whole, tail))), [])

    def inside(self, path: str) -> list[str]:
        """The files in a folder of that path."""
        folder = f"{normalized_path(path).casefold()}/"
        return [name for stored, name in self._exact.items() if stored.casefold().startswith(folder)]

    def similar(self, path: str) -> str:
        """A file that differs from the path in its extension, or else the first file; empty if there is none."""
        found = _pick(self._ends, without_extension(normalized_path(path)))
        return next(iter(found or self._exact.values()), "")


def normalized_path(path: str) -> str:
    """A relative path in one spelling: composed characters, no `./` in front, no `/` at the end."""
    return unicodedata.normalize("NFC", path).removeprefix("./").rstrip("/")


def without_extension(path: str) -> str:
    """A path without its extension (`.nii.gz` counts as one)."""
    return EXTENSION.sub("", path)


def _ends(parts: list[str], depths: set[int]) -> list[str]:
    return ["/".join(parts[-depth:]) for depth in depths if depth <= len(parts)]


def _pick(index: dict[str, list[tuple[str, str]]], path: str) -> list[str]:
    entries = index.get(path.casefold(), [])
    return [name for end, name in entries if end == path] or [name for _, name in entries]

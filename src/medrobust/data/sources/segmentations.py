"""Detect segmentation masks beside the pictures of a data set by their names; they must not become images."""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from medrobust.core.errors import UserError
from medrobust.data.sources.labels import LabelMap
from medrobust.data.sources.matching import without_extension

WORD = r"(?:ground[ _-]?truth|gt|mask|seg|segm|segmentation|annotation|label|superpixel)s?"
HINT = re.compile(WORD, re.IGNORECASE)
#: `x_mask`, `x_mask_1` and `mask_x` are masks of `x`.
LAST = re.compile(rf"(?P<picture>.+?)(?P<mark>[ ._-]+{WORD})(?:[ ._-]*\(?\d+\)?)?", re.IGNORECASE)
FIRST = re.compile(rf"(?P<mark>{WORD}[ ._-]+)(?P<picture>.+)", re.IGNORECASE)
#: `masks`, `lung masks`, `ManualMask`.
FOLDER = re.compile(rf"(?:.*[ ._-])?{WORD}|.*(?-i:Masks?)", re.IGNORECASE)
LAST_WORD = re.compile(r"[ ._-]+[^ ._-]+$")


def check_no_masks(ids: Iterable[str], labels: LabelMap, in_table: bool = False) -> None:
    """Stop if pictures are masks of others: `x_mask.png` beside `x.png`, or `masks/x.png` beside `images/x.png`.

    A folder whose name is a label in `labels` is a class, not a folder of masks. `in_table`: a table lists the
    images.

    Raises:
        UserError: there are such pairs of names.
    """
    names = list(dict.fromkeys(name.partition("#")[0] for name in ids))
    if not any(HINT.search(name) for name in names):
        return
    paths = [PurePosixPath(name) for name in names]
    if found := [*_marked(paths), *_in_folders(paths, labels)]:
        mask, pattern = found[0]
        way = "Remove their rows from the table" if in_table else f"Set data.ignore: ['{pattern}']"
        remedy = f"{way} to leave them out; rename them if they are images"
        raise UserError(str(mask), f"is a segmentation mask by its name ({len(found)} such files)", remedy)


def _marked(paths: list[PurePosixPath]) -> Iterator[tuple[PurePosixPath, str]]:
    """Masks with a mark in their name, in the folder of their pictures, each with a pattern for `data.ignore`."""
    pictures = {(path.parent, _stem(path)) for path in paths}
    for path in paths:
        for rule, pattern in ((LAST, "*{}*"), (FIRST, "*/{}*")):
            match = rule.fullmatch(_stem(path))
            if match and any((path.parent, name) in pictures for name in _names(match["picture"])):
                yield path, pattern.format(match["mark"])


def _in_folders(paths: list[PurePosixPath], labels: LabelMap) -> Iterator[tuple[PurePosixPath, str]]:
    """Masks in a folder of masks that is beside their pictures, or beside the folder of their pictures."""
    masks: dict[PurePosixPath, tuple[tuple[str, ...], str]] = {}  # path -> folders above, folder of masks
    for path in paths:
        folders = path.parts[:-1]
        for depth, name in enumerate(folders):
            if FOLDER.fullmatch(name) and labels.find(name) is None:
                masks[path] = folders[:depth], name
                break
    tops = {top for top, _ in masks.values()}
    pictures = {
        (path.parts[:depth], rest, _stem(path))
        for path in paths if path not in masks
        for depth in range(len(path.parts)) if path.parts[:depth] in tops
        for rest in (path.parts[depth:-1], path.parts[depth + 1 : -1])
    }  # fmt: skip
    for path, (top, folder) in masks.items():
        match = LAST.fullmatch(_stem(path)) or FIRST.fullmatch(_stem(path))
        names = {_stem(path), *_names(match["picture"] if match else _stem(path))}
        rest = tuple(name for name in path.parts[len(top) + 1 : -1] if not FOLDER.fullmatch(name))
        if any((top, rest, name) in pictures for name in names):
            yield path, f"{'*/' if top else ''}{folder}/*"


def _stem(path: PurePosixPath) -> str:
    return without_extension(path.name)


def _names(picture: str) -> tuple[str, str]:
    """The picture of a mask, also if a word for what is outlined stands before the mark: `x_lesion_mask`."""
    return picture, LAST_WORD.sub("", picture)

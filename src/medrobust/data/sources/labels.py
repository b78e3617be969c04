"""Map labels of the data to classes, and tables that list the images to the columns of the manifest."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.params.sources import TableParams
from medrobust.data.sources.files import Files
from medrobust.data.sources.matching import FileFinder
from medrobust.data.sources.tables import read_columns

#: Names of published splits (folders, table cells) -> split.
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
          "dev": "val", "test": "test", "testing": "test", "": ""}  # fmt: skip
#: Cells of the column `kind` -> kind.
KINDS = {"": "real", "real": "real", "synthetic": "synthetic"}
OPTIONAL_COLUMNS = ("patient", "slice", "split", "kind", "parent")
WHOLE_NUMBER = re.compile(r"^(-?\d+)\.0+$")
#: Cells that programs write for a missing value; as an id, they would join all patients that have none.
MISSING = ("na", "n/a", "#n/a", "<na>", "nan", "null", "none")
#: Spaces and underscores, unless they stand between digits, and hyphens between letters.
SEPARATOR = re.compile(r"(?<!\d)[\s_]+|[\s_]+(?!\d)|(?<=[^\W\d_])-(?=[^\W\d_])")
#: Class of images that `data.labels` maps to null.
LEFT_OUT = ""


class LabelMap:
    """Maps a name or number in the data to a class of `data.classes`.

    Entries of `data.labels` come first, then exact class names (unless all labels must be named, as those of
    external data), then names compared as `normalized` returns them.
    """

    def __init__(self, data: DataParams) -> None:
        self.classes = data.classes
        self._exact = {name: value or LEFT_OUT for name, value in data.label_names.items()}
        count = Counter(map(normalized, self._exact))
        loose = {normalized(name): value for name, value in self._exact.items()}
        self._loose = {name: value for name, value in loose.items() if count[name] == 1}

    def find(self, raw: str) -> str | None:
        """The class; `LEFT_OUT` if `data.labels` maps the label to null, None if the label is unknown."""
        raw = unicodedata.normalize("NFC", raw)
        return self._exact.get(raw, self._loose.get(normalized(raw)))

    def column(self, raw: pd.Series, where: str) -> pd.Series:
        """Map a column of labels to classes; raises a UserError for a label that `find` does not know."""
        classes = {value: self.find(value) for value in raw.unique()}
        if unknown := sorted(value for value, label in classes.items() if label is None):
            rows = {value: raw.index[raw == value] for value in unknown[:10]}
            counts = ", ".join(f"{value!r} ({len(found)}, {_first(found)})" for value, found in rows.items())
            known = ", ".join(self.classes)
            remedy = f"Use the classes {known}, or map the label in data.labels (for example {unknown[0]!r}: null)"
            raise UserError(where, f"labels that are not a class: {counts}", remedy)
        return raw.map(classes)


def _first(rows: pd.Index) -> str:
    """The first rows in words: line numbers of a file, or ids."""
    return f"first{' in line' if rows.dtype.kind == 'i' else ':'} {', '.join(map(str, rows[:3]))}"


def drop_left_out(table: pd.DataFrame, raw: pd.Series) -> tuple[pd.DataFrame, dict[str, int]]:
    """Drop the rows whose label is `LEFT_OUT`, and count them per label of the data, `raw`."""
    dropped = table["label"] == LEFT_OUT
    return table[~dropped], {str(label): int(count) for label, count in raw[dropped].value_counts().items()}


@dataclass(frozen=True)
class LabelTable:
    """A table of images with the columns of the manifest, and `path` if requested.

    The index of `table` is the line number in the file, for messages.
    """

    table: pd.DataFrame
    left_out: dict[str, int]  # label that `data.labels` maps to null -> number of rows
    where: str  # name of the file, for messages
    dropped: list[str] = field(default_factory=list)  # paths of the rows that are left out
    name: str = ""  # of the file inside the archive; empty if it is beside it

    @property
    def base(self) -> str:
        """Folder in front of `where` inside the archive; paths may be relative to it."""
        return self.name.removesuffix(self.where)


def normalized(name: str) -> str:
    """A label or folder name in lower case, without separators of words: `Non-Demented` is `nondemented`.

    Every other character has a meaning and stays: signs (`HER2-`, `-1`), comparisons (`<3mm`), points and digits.
    Only whole numbers lose their decimals: `1.0` is `1`.
    """
    name = unicodedata.normalize("NFC", name).strip().lower()
    return SEPARATOR.sub("", WHOLE_NUMBER.sub(r"\1", name))


def read_label_table(data: DataParams, raw: Path, files: Files) -> LabelTable:
    """Read the table `data.table.file`, which was copied beside the archive or is a file inside it.

    Raises:
        UserError: there is no such file or several, it has no row, or for a reason in `read_columns` or
            `manifest_columns`.
    """
    block = data.table
    if block is None or block.file is None:
        raise UserError("params.yaml: data.table.file", "missing", "Set it to a CSV, TSV or Parquet file")
    suffix = PurePosixPath(block.file).suffix.lower()
    copied = raw / f"table{suffix}"
    if copied.is_file():
        content, name = copied.read_bytes(), ""
    else:
        found = [name for name in files.names if f"/{name}".endswith(f"/{block.file}")]
        if block.file not in found and len(found) != 1:
            reason = f"may be {found[0]} or {found[1]}" if found else "no such file"
            remedy = f"Set it to a path, or to the name of a file in {files.path.name}"
            raise UserError("params.yaml: data.table.file", f"{block.file}: {reason}", remedy)
        name = block.file if block.file in found else found[0]
        content = files.read(name)
    needed, optional = wanted_columns(block, data.groups, block.path)
    frame = read_columns(content, block.file, needed, optional)
    if frame.empty:
        raise UserError(block.file, "has no row below its header", "Add a row for each image")
    return replace(manifest_columns(frame, data, block.file, block.path), name=name)


def wanted_columns(
    block: TableParams, groups: Iterable[str], path: str | None = None
) -> tuple[list[str], list[str]]:
    """The columns that a table must have and those that it may have; those that params.yaml names must exist."""
    columns = {name: str(getattr(block, name)) for name in OPTIONAL_COLUMNS}
    requested = [column for name, column in columns.items() if name in block.model_fields_set]
    needed = [*([path] if path else []), block.label, *requested, *groups]
    return needed, [column for column in columns.values() if column not in needed]


def manifest_columns(frame: pd.DataFrame, data: DataParams, where: str, path: str | None = None) -> LabelTable:
    """Convert a table whose columns are named as in `data.table` to the columns of the manifest.

    `path` names the column of paths; None if the table has none. `where` is that of `LabelTable`.

    Raises:
        UserError: a label, split, kind or slice number is not valid.
    """
    block = data.table or TableParams()
    columns = {name: str(getattr(block, name)) for name in OPTIONAL_COLUMNS}
    text = {name: as_text(frame[column]) if column in frame else "" for name, column in columns.items()}
    table = pd.DataFrame({"label": as_text(frame[block.label])}, index=frame.index).assign(**text)
    for name in ("patient", "slice"):  # 1.0 and 1 are one patient
        table[name] = table[name].str.replace(WHOLE_NUMBER, r"\1", regex=True)
    table["patient"] = table["patient"].mask(table["patient"].str.lower().isin(MISSING), "")
    for name in data.groups:
        table[name] = as_text(frame[name])
    if path:
        table.insert(0, "path", as_text(frame[path]).str.replace("\\", "/"))
    raw = table["label"]
    table["label"] = LabelMap(data).column(raw, where)
    table["split"] = _mapped(table["split"].str.lower(), SPLIT_NAMES, where, "split")
    table["kind"] = _mapped(table["kind"].str.lower(), KINDS, where, "kind")
    table["slice"] = _numbers(table["slice"], where)
    table = table.rename(columns={"split": "published_split"})
    dropped = table["path"][table["label"] == LEFT_OUT].tolist() if path else []
    table, left_out = drop_left_out(table, raw)
    return LabelTable(table, left_out, where, dropped)


class Matched(NamedTuple):
    """The rows of a table with their files."""

    table: pd.DataFrame  # with the column `id`
    skipped: list[dict[str, str]]  # {id, reason} of the rows without a file
    unused: list[str]  # files that no row names, not even one that `data.labels` leaves out


def match_files(rows: LabelTable, names: Iterable[str], data: DataParams) -> Matched:
    """Find the file (or folder) of each row's `path` and `parent` among `names`, see `FileFinder`.

    Raises:
        UserError: no row has a file, a row has none or several (with `on_bad_image: fail`), two rows have the same
            file, or a parent is not a row.
    """
    names, table = list(names), rows.table
    finder = FileFinder(names, {*table["path"], *table["parent"], *rows.dropped}, rows.base)
    found = table["path"].map(finder.find)
    count = found.map(len)
    if (bad := found[count != 1]).size and (data.on_bad_image == "fail" or not (count == 1).any()):
        raise _unclear(bad, finder, rows)
    reasons = count.map({0: "a row of the table without a file"}).fillna("a row of the table with several files")
    skipped = [{"id": table["path"][line], "reason": reasons[line]} for line in bad.index]
    table = table[count == 1].assign(id=found[count == 1].str[0])
    if (twice := table[table["id"].duplicated()]).size:
        earlier = table.index[table["id"] == twice["id"].iloc[0]][0]
        share = f"{len(twice)} of {len(rows.table)} rows repeat a file"
        found_twice = f"{twice['path'].iloc[0]!r} is the same file as in line {earlier} ({share})"
        raise UserError(f"{rows.where}, line {twice.index[0]}", found_twice, "Keep one row per file")
    parents = table["parent"].map(lambda path: finder.find(path) if path else [""])
    ids = {"", *table["id"]}
    orphans = ~parents.map(lambda files: len(files) == 1 and files[0] in ids)
    if orphans.any():
        line = orphans.index[orphans][0]
        reason = f"the parent {table['parent'][line]!r} is not a row of the table"
        remedy = "Set it to the path of another row, or leave it empty"
        raise UserError(f"{rows.where}, line {line}", reason, remedy)
    used = {*table["id"], *(name for path in rows.dropped for name in finder.find(path))}
    unused = [name for name in names if name not in used]
    return Matched(table.assign(parent=parents.str[0]).reset_index(drop=True), skipped, unused)


def _unclear(found: pd.Series, finder: FileFinder, rows: LabelTable) -> UserError:
    """The error for rows that match no file, or several; `found` has the files of these rows."""
    line, files = found.index[0], found.iloc[0]
    path, share = rows.table["path"][line], f"{len(found)} of {len(rows.table)} rows have no file or several"
    where = f"{rows.where}, line {line}"
    if files:
        remedy = "Give more of the path in the table, or set data.path to one of the folders"
        return UserError(where, f"{path!r} may be {files[0]} or {files[1]} ({share})", remedy)
    if inside := finder.inside(path):
        remedy = "Give the whole path in the table"
        return UserError(where, f"{path!r} is a folder further up, with {inside[0]} in it ({share})", remedy)
    remedy = "Fix the row, or set data.on_bad_image: skip to leave such rows out"
    if len(found) == len(rows.table):
        remedy = "Set data.path to the folder of the images, and data.table.path to the column with their paths"
    similar = finder.similar(path)
    hint = f"; one of its files is {similar}" if similar else "; it has no file of this kind"
    return UserError(where, f"{path!r} is not a file of the data{hint} ({share})", remedy)


def as_text(column: pd.Series) -> pd.Series:
    """Convert a column to text; missing values become empty, whole floats have no `.0`."""
    text = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    return text.str.replace(WHOLE_NUMBER, r"\1", regex=True) if column.dtype.kind == "f" else text


def _mapped(column: pd.Series, mapping: dict[str, str], where: str, name: str) -> pd.Series:
    """Map the cells of a column; raises a UserError for unknown values."""
    if (unknown := ~column.isin(list(mapping))).any():
        line = unknown.index[unknown][0]
        found = f"{name} is {column[line]!r}"
        raise UserError(f"{where}, line {line}", found, f"Use one of: {', '.join(filter(None, mapping))}")
    return column.map(mapping)


def _numbers(column: pd.Series, where: str) -> pd.Series:
    """Convert slice numbers to integers; missing ones become NA."""
    invalid = (column != "") & ~column.str.fullmatch(r"-?\d+")
    if invalid.any():
        line = invalid.index[invalid][0]
        remedy = "Use a whole number, or leave it empty"
        raise UserError(f"{where}, line {line}", f"slice is {column[line]!r}", remedy)
    return pd.to_numeric(column.where(column != "", None)).astype("Int64")

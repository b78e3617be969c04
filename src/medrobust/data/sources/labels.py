"""Map labels of the data to classes, and tables that list the images to the columns of the manifest."""

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.params.sources import TableParams
from medrobust.data.sources.files import Files

#: Names of published splits (folders, table cells) -> split.
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
          "dev": "val", "test": "test", "testing": "test", "": ""}  # fmt: skip
#: Cells of the column `kind` -> kind.
KINDS = {"": "real", "real": "real", "synthetic": "synthetic"}
OPTIONAL_COLUMNS = ("patient", "slice", "split", "kind", "parent")
WHOLE_NUMBER = re.compile(r"^(-?\d+)\.0+$")
#: Spaces and underscores, unless they stand between digits, and hyphens between letters.
SEPARATOR = re.compile(r"(?<!\d)[\s_]+|[\s_]+(?!\d)|(?<=[^\W\d_])-(?=[^\W\d_])")
#: Class of images that `data.labels` maps to null.
LEFT_OUT = ""


class LabelMap:
    """Maps a name or number in the data to a class of `data.classes`.

    Entries of `data.labels` come first, then exact class names, then names compared as `normalized` returns them.
    """

    def __init__(self, data: DataParams) -> None:
        self.classes = data.classes
        mapped = {name: value or LEFT_OUT for name, value in data.labels.items()}
        self._exact = {name: name for name in data.classes} | mapped
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
    base: str = ""  # folder of the file inside the archive; paths may be relative to it


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
        UserError: it is missing or neither CSV, TSV nor Parquet, or for a reason in `manifest_columns`.
    """
    block = data.table
    if block is None or block.file is None:
        raise UserError("params.yaml: data.table.file", "missing", "Set it to a CSV, TSV or Parquet file")
    suffix = PurePosixPath(block.file).suffix.lower()
    copied = raw / f"table{suffix}"
    if copied.is_file():
        content, base = copied.read_bytes(), ""
    else:
        name = next((n for n in files.names if n == block.file or n.endswith(f"/{block.file}")), None)
        if name is None:
            remedy = f"Set it to a path, or to the name of a file in {files.path.name}"
            raise UserError("params.yaml: data.table.file", f"{block.file}: no such file", remedy)
        content, base = files.read(name), name[: -len(block.file)]
    try:
        if suffix == ".parquet":
            frame = pd.read_parquet(io.BytesIO(content))
        else:
            options: Any = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
            frame = pd.read_csv(io.BytesIO(content), sep="\t" if suffix == ".tsv" else ",", **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError, ValueError) as error:
        remedy = "Save it as CSV in UTF-8, or as Parquet"
        raise UserError(block.file, f"cannot be read ({error})", remedy) from None
    frame.index = pd.RangeIndex(2, len(frame) + 2)  # line 1 is the header
    return manifest_columns(frame, data, block.file, block.path, base)


def manifest_columns(
    frame: pd.DataFrame, data: DataParams, where: str, path: str | None = None, base: str = ""
) -> LabelTable:
    """Convert a table whose columns are named as in `data.table` to the columns of the manifest.

    `path` names the column of paths; None if the table has none. `where` and `base` are those of `LabelTable`.

    Raises:
        UserError: a required column is missing, or a label, split, kind or slice number is not valid.
    """
    block = data.table or TableParams()
    columns = {name: str(getattr(block, name)) for name in OPTIONAL_COLUMNS}
    requested = [column for name, column in columns.items() if name in block.model_fields_set]
    needed = [*([path] if path else []), block.label, *requested]
    if missing := [name for name in needed if name not in frame]:
        found = f"no column {', '.join(map(repr, missing))}; its columns are {', '.join(map(str, frame.columns))}"
        raise UserError(where, found, "Set the column names in data.table")
    text = {name: as_text(frame[column]) if column in frame else "" for name, column in columns.items()}
    table = pd.DataFrame({"label": as_text(frame[block.label])}, index=frame.index).assign(**text)
    if path:
        table.insert(0, "path", as_text(frame[path]).str.replace("\\", "/"))
    raw = table["label"]
    table["label"] = LabelMap(data).column(raw, where)
    table["split"] = _mapped(table["split"].str.lower(), SPLIT_NAMES, where, "split")
    table["kind"] = _mapped(table["kind"].str.lower(), KINDS, where, "kind")
    table["slice"] = _numbers(table["slice"], where)
    table, left_out = drop_left_out(table.rename(columns={"split": "published_split"}), raw)
    return LabelTable(table, left_out, where, base)


def match_files(
    rows: LabelTable, names: Iterable[str], data: DataParams
) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Find the file (or folder) of each row's `path` and `parent` among `names`; it becomes the column `id`.

    A path may be relative to the top or to the folder of the table. Many tables only give a file name, with or
    without its extension; that suffices if exactly one file has this name.

    Returns:
        The table, and {id, reason} of the rows without a file (with `on_bad_image: skip`).

    Raises:
        UserError: a row has no file (with `on_bad_image: fail`), two rows have the same file, or a parent is not a
            row.
    """
    known = {_normal(name): name for name in names}
    count = Counter(short for name in known for short in _short_names(name))
    loose = {short: known[name] for name in known for short in _short_names(name) if count[short] == 1}
    base = _normal(rows.base)

    def find(path: str) -> str:
        path = _normal(path)
        return known.get(f"{base}/{path}" if base else path) or known.get(path) or loose.get(path, "")

    table = rows.table.assign(id=rows.table["path"].map(find))
    unmatched = table[table["id"] == ""]
    if len(unmatched) and data.on_bad_image == "fail":
        found = f"{unmatched['path'].iloc[0]!r} is not a file of the data ({len(unmatched)} such rows)"
        remedy = "Fix the row, or set data.on_bad_image: skip"
        raise UserError(f"{rows.where}, line {unmatched.index[0]}", found, remedy)
    skipped = [{"id": path, "reason": "a row of the table without a file"} for path in unmatched["path"]]
    table = table[table["id"] != ""]
    if (twice := table[table["id"].duplicated()]).size:
        found = f"{twice['path'].iloc[0]!r} is in more than one row"
        raise UserError(f"{rows.where}, line {twice.index[0]}", found, "Remove all but one of them")
    table = table.assign(parent=table["parent"].map(lambda path: find(path) if path else ""))
    orphans = (rows.table.loc[table.index, "parent"] != "") & ~table["parent"].isin(table["id"])
    if orphans.any():
        line = orphans.index[orphans][0]
        found = f"the parent {rows.table.loc[line, 'parent']!r} is not a row of the table"
        remedy = "Set it to the path of another row, or leave it empty"
        raise UserError(f"{rows.where}, line {line}", found, remedy)
    return table.reset_index(drop=True), skipped


def _normal(path: str) -> str:
    return unicodedata.normalize("NFC", path).removeprefix("./").rstrip("/")


def _short_names(path: str) -> set[str]:
    """A file name, and the name without its extension (`.nii.gz` counts as one extension)."""
    name = PurePosixPath(path).name
    return {name, PurePosixPath(name.removesuffix(".gz")).stem}


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

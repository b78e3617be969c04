"""What the data call a class, and tables that name each image: turned into the columns of the manifest."""

import io
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.params.sources import TableParams
from medrobust.data.sources.files import Files

#: Names that mean a published split.
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
          "dev": "val", "test": "test", "testing": "test", "": ""}  # fmt: skip
KINDS = ("real", "synthetic")
OPTIONAL = ("patient", "slice", "split", "kind", "parent")
LEFT_OUT = ""


class Labels:
    """Finds the class of `data.classes` for a name or number in the data.

    `data.labels` comes first, then the exact name, then the name without case, spaces and signs.
    """

    def __init__(self, data: DataParams) -> None:
        self.classes = data.classes
        self._exact = {name: name for name in data.classes} | {
            name: value or LEFT_OUT for name, value in data.labels.items()
        }
        count = Counter(plain(name) for name in self._exact)
        self._loose = {plain(name): value for name, value in self._exact.items() if count[plain(name)] == 1}

    def find(self, raw: str) -> str | None:
        """The class, `LEFT_OUT` where `data.labels` maps it to null, None where nobody knows it."""
        raw = unicodedata.normalize("NFC", raw)
        return self._exact.get(raw, self._loose.get(plain(raw)))

    def column(self, raw: pd.Series, where: str) -> pd.Series:
        """The class of each row.

        Raises:
            UserError: labels that are in neither `data.classes` nor `data.labels`.
        """
        found = {value: self.find(value) for value in raw.unique()}
        if unknown := sorted(value for value, label in found.items() if label is None):
            counts = ", ".join(f"{value!r} ({int((raw == value).sum())})" for value in unknown[:10])
            remedy = f"data.classes has {', '.join(self.classes)}; map others by data.labels ({unknown[0]}: null)"
            raise UserError(where, f"labels that are no class: {counts}", remedy)
        return raw.map(found)


@dataclass(frozen=True)
class Rows:
    """A table in the manifest's words.

    Attributes:
        table: `label`, `patient`, `slice`, `published_split`, `kind`, `parent`, and `path` if it was asked for;
            the index is the line's number in the file, for messages.
        left_out: rows of each label that `data.labels` maps to null.
        where: the file, for messages.
        base: the folder inside the archive in which the file lies; paths may start there.
    """

    table: pd.DataFrame
    left_out: dict[str, int]
    where: str
    base: str = ""


def plain(name: str) -> str:
    """A class or folder name without case, spaces and signs."""
    return "".join(sign for sign in unicodedata.normalize("NFC", name).lower() if sign.isalnum())


def read_rows(data: DataParams, raw: Path, files: Files) -> Rows:
    """The table `data.table.file`: one that was copied beside the archive, or a file inside it.

    Raises:
        UserError: it is missing, no CSV or Parquet, or see `tidy`.
    """
    block = data.table
    if block is None or block.file is None:
        raise UserError("params.yaml: data.table.file", "missing", "This source needs a CSV or Parquet table")
    suffix = PurePosixPath(block.file).suffix.lower()
    copied = raw / f"table{suffix}"
    if copied.is_file():
        content, base = copied.read_bytes(), ""
    else:
        name = next((n for n in files.names if n == block.file or n.endswith(f"/{block.file}")), None)
        if name is None:
            remedy = f"Give its path, or the name of a file in {files.place.name}"
            raise UserError("params.yaml: data.table.file", f"{block.file}: no such file", remedy)
        content, base = files.read(name), name[: -len(block.file)]
    try:
        if suffix == ".parquet":
            frame = pd.read_parquet(io.BytesIO(content))
        else:
            separator = "\t" if suffix == ".tsv" else ","
            frame = pd.read_csv(
                io.BytesIO(content), sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig"
            )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError, ValueError) as error:
        raise UserError(
            block.file, f"cannot be read ({error})", "Save it as CSV in UTF-8, or as Parquet"
        ) from None
    frame.index = pd.RangeIndex(2, len(frame) + 2)  # line 1 is the header
    return tidy(frame, data, block.file, block.path, base)


def tidy(frame: pd.DataFrame, data: DataParams, where: str, path: str | None = None, base: str = "") -> Rows:
    """Bring a table with columns as `data.table` calls them into the manifest's words.

    Raises:
        UserError: a column that must be there is not, or a label, split, kind or slice number that has no meaning.
    """
    block = data.table or TableParams()
    wanted = {name for name in OPTIONAL if name in block.model_fields_set}
    columns = {name: str(getattr(block, name)) for name in OPTIONAL}
    needed = [*([path] if path else []), block.label, *(columns[name] for name in OPTIONAL if name in wanted)]
    if lacking := [name for name in needed if name not in frame]:
        found = f"no column {', '.join(map(repr, lacking))}; its columns are {', '.join(map(str, frame.columns))}"
        raise UserError(where, found, "Name the columns in data.table")
    text = {name: _text(frame[column]) if column in frame else "" for name, column in columns.items()}
    table = pd.DataFrame({"label": _text(frame[block.label])}, index=frame.index).assign(**text)
    if path:
        table.insert(0, "path", _text(frame[path]).str.replace("\\", "/"))
    raw = table["label"]
    table["label"] = Labels(data).column(raw, where)
    table["split"] = _known(table["split"].str.lower(), SPLITS, where, "split")
    table["kind"] = _known(
        table["kind"].str.lower(), {"": "real", **{kind: kind for kind in KINDS}}, where, "kind"
    )
    table["slice"] = _numbers(table["slice"], where)
    dropped = table["label"] == LEFT_OUT
    counts = {str(value): int(count) for value, count in raw[dropped].value_counts().items()}
    return Rows(table[~dropped].rename(columns={"split": "published_split"}), counts, where, base)


def locate(rows: Rows, names: Iterable[str], data: DataParams) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Find the file (or folder) of each row's `path` and `parent` among `names`, as column `id`.

    A path may start at the top or at the table's own folder; many tables give only a file's name, or the name
    without its ending, which is enough where one file alone has it.

    Returns:
        The table, and {id, reason} of the rows without a file (with `on_bad_image: skip`).

    Raises:
        UserError: a row has no file, two rows have the same, or a parent is no row.
    """
    known = {_normal(name): name for name in names}
    count = Counter(short for name in known for short in _short_names(name))
    loose = {short: known[name] for name in known for short in _short_names(name) if count[short] == 1}
    base = _normal(rows.base)

    def place(path: str) -> str:
        path = _normal(path)
        return known.get(f"{base}/{path}" if base else path) or known.get(path) or loose.get(path, "")

    table = rows.table.assign(id=rows.table["path"].map(place))
    lost = table[table["id"] == ""]
    if len(lost) and data.on_bad_image == "fail":
        found = f"{lost['path'].iloc[0]!r} is no file of the data ({len(lost)} such rows)"
        remedy = "Mend the row, or set data.on_bad_image: skip"
        raise UserError(f"{rows.where}, line {lost.index[0]}", found, remedy)
    skipped = [{"id": path, "reason": "a row of the table without its file"} for path in lost["path"]]
    table = table[table["id"] != ""]
    if (twice := table[table["id"].duplicated()]).size:
        found = f"{twice['path'].iloc[0]!r} stands in more than one row"
        raise UserError(f"{rows.where}, line {twice.index[0]}", found, "Leave one of them")
    table = table.assign(parent=table["parent"].map(lambda path: place(path) if path else ""))
    orphans = (rows.table.loc[table.index, "parent"] != "") & ~table["parent"].isin(table["id"])
    if orphans.any():
        line = orphans.index[orphans][0]
        found = f"the parent {rows.table.loc[line, 'parent']!r} is no row of the table"
        raise UserError(f"{rows.where}, line {line}", found, "Name the parent's path, or leave it empty")
    return table.reset_index(drop=True), skipped


def _normal(path: str) -> str:
    return unicodedata.normalize("NFC", path).removeprefix("./").rstrip("/")


def _short_names(path: str) -> set[str]:
    """A file's name, and the name without its ending (`.nii.gz` counts as one)."""
    name = PurePosixPath(path).name
    return {name, PurePosixPath(name.removesuffix(".gz")).stem}


def _text(column: pd.Series) -> pd.Series:
    """A column as text; missing values are empty, whole numbers have no `.0`."""
    if column.dtype.kind == "f" and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype(object).where(column.notna(), "").astype(str).str.strip()


def _known(column: pd.Series, meaning: dict[str, str], where: str, name: str) -> pd.Series:
    if (unknown := ~column.isin(list(meaning))).any():
        line = unknown.index[unknown][0]
        found = f"{name} is {column[line]!r}"
        raise UserError(f"{where}, line {line}", found, f"Known: {', '.join(filter(None, meaning))}")
    return column.map(meaning)


def _numbers(column: pd.Series, where: str) -> pd.Series:
    """Slice numbers as integers, missing ones as NA."""
    wrong = (column != "") & ~column.str.fullmatch(r"-?\d+")
    if wrong.any():
        line = wrong.index[wrong][0]
        raise UserError(f"{where}, line {line}", f"slice is {column[line]!r}", "Give a whole number or nothing")
    return pd.to_numeric(column.where(column != "", None)).astype("Int64")

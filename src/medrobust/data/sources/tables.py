"""Read the columns of a table of images: CSV as spreadsheets save it, TSV, or Parquet."""

import codecs
import csv
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from medrobust.core.errors import UserError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

#: Characters that may separate the cells of a line.
SEPARATORS = ",;\t|"
#: A first line with which spreadsheets name the separator.
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
#: First bytes of the workbooks of spreadsheets (xlsx and ods; xls).
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_columns(content: bytes, where: str, needed: Sequence[str], optional: Sequence[str]) -> pd.DataFrame:
    """Read the `needed` and, if there are any, `optional` columns of a table; `where` is its name, for messages.

    The index is the line number in the file (Parquet: as if it were a CSV file with one line per row). Headings
    lose surrounding blanks; columns without a heading and lines without content do not count.

    Raises:
        UserError: it is neither CSV, TSV nor Parquet, a needed column is missing, a column occurs twice, or a line
            has more cells than the header.
    """
    wanted = [*needed, *optional]
    if where.lower().endswith(".parquet"):
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        try:
            frame = parquet_columns(ParquetFile(io.BytesIO(content)), where, needed, optional)
        except (ArrowException, OSError) as error:
            raise _unreadable(where, error) from None
        return frame.set_axis(pd.RangeIndex(2, len(frame) + 2))
    if content.startswith(WORKBOOKS):
        raise UserError(where, "is a workbook of a spreadsheet", "Save its sheet as CSV in UTF-8")
    try:
        text = content.decode("utf-16" if content.startswith(UTF16) else "utf-8-sig")
        lines, headings = _lines(text, wanted)
    except (csv.Error, UnicodeDecodeError) as error:
        raise _unreadable(where, error) from None
    present = check_columns(headings, where, needed, optional)
    positions = [headings.index(name) for name in present]
    for number, cells in lines:
        if any(cell.strip() for cell in cells[len(headings) :]):
            found = f"has {len(cells)} cells, but the header has {len(headings)} columns"
            raise UserError(f"{where}, line {number}", found, "Put quotes around cells that contain the separator")
    rows = [[cells[column] if column < len(cells) else "" for column in positions] for _, cells in lines]
    return pd.DataFrame(rows, pd.Index([number for number, _ in lines], dtype=int), present, dtype=object)


def _lines(text: str, wanted: Sequence[str]) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Split a CSV text into its lines with content, each with its number, and the headings.

    The separator is the one with which most of the wanted headings are found.
    """
    if "\0" in text:
        raise csv.Error("it contains NUL characters")
    named = SEPARATOR_LINE.match(text)
    start = named.end() if named else 0
    header = next((line for line in text[start:].splitlines() if line.strip()), "")

    def found(separator: str) -> tuple[int, int]:
        headings = [heading.strip() for heading in next(csv.reader([header], delimiter=separator), [])]
        return len({*headings} & {*wanted}), len(headings)

    separator = named[1] if named else max(SEPARATORS, key=found)
    options: dict[str, Any] = {"delimiter": separator, "skipinitialspace": True, "strict": True}
    reader = csv.reader(io.StringIO(text[start:], newline=""), **options)
    lines = [(reader.line_num + bool(named), cells) for cells in reader if any(map(str.strip, cells))]
    if not lines:
        raise csv.Error("it is empty")
    return lines[1:], [heading.strip() for heading in lines[0][1]]


def parquet_columns(
    file: "pq.ParquetFile", where: str, needed: Sequence[str], optional: Sequence[str]
) -> pd.DataFrame:
    """The same columns of an open Parquet file, with the types that it stores.

    Raises:
        UserError: a needed column is missing, a column occurs twice, or its cells are lists, structures or bytes.
    """
    schema = file.schema_arrow
    present = check_columns(schema.names, where, needed, optional)
    for name in present:
        kind = schema.field(name).type
        if kind.num_fields or str(kind).startswith(("binary", "large_binary", "fixed_size_binary")):
            found = f"the cells of the column {name!r} are {kind}, not text or numbers"
            raise UserError(where, found, "Set data.table to a column with one value per image")
    # Missing values must not turn whole numbers into floats: long ids would lose digits.
    options: dict[str, Any] = {"ignore_metadata": True, "integer_object_nulls": True}
    frame: pd.DataFrame = file.read(columns=present).select(present).to_pandas(**options)
    return frame


def check_columns(columns: Sequence[str], where: str, needed: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The wanted columns that a table has; raises a UserError if one is missing or occurs twice."""
    if missing := [name for name in needed if name not in columns]:
        named = ", ".join(column for column in columns if column)
        found = f"no column {', '.join(map(repr, missing))}; its columns are {named}"
        raise UserError(where, found, "Set the column names in data.table")
    present = [name for name in dict.fromkeys((*needed, *optional)) if name in columns]
    if twice := [name for name in present if list(columns).count(name) > 1]:
        raise UserError(where, f"more than one column is named {twice[0]!r}", "Rename or remove the others")
    return present


def _unreadable(where: str, error: Exception) -> UserError:
    return UserError(where, f"cannot be read ({error})", "Save it as CSV in UTF-8, or as Parquet")

"""Tables as spreadsheets and libraries save them: separators, encodings, headings, line numbers, types."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medrobust.core.errors import UserError
from medrobust.data.sources.tables import read_columns

HEADER = ["path", "label", "patient"]
ROWS = [["a.png", "ill", "001"], ["b, c.png", "größer; 5", "002"]]


def read(content: bytes, name: str = "t.csv") -> pd.DataFrame:
    return read_columns(content, name, needed=["path", "label"], optional=["patient", "slice"])


def text(separator: str, end: str = "\n") -> str:
    """The table with every cell in quotes."""
    return "".join(separator.join(f'"{cell}"' for cell in row) + end for row in [HEADER, *ROWS])


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_separator_and_encoding_gives_the_same_table(separator: str, encoding: str, end: str) -> None:
    for start in ("", f"sep={separator}{end}", end * 2):
        frame = read((start + text(separator, end)).encode(encoding))
        assert list(frame) == HEADER
        assert frame.to_numpy().tolist() == ROWS


@pytest.mark.parametrize(
    ("content", "index"),
    [
        ("path,label,patient\na,b,1\nc,d,2\n", [2, 3]),
        (" path,label ,\u00a0patient\u00a0,,,\na,b,1,,,\nc,d,2,,,\n", [2, 3]),
        ("path,label,patient,,\na,b,1,a note,\nc,d,2,,x\n", [2, 3]),
        ("path,label,patient\na,b,1,\nc,d,2,,\n", [2, 3]),  # commas that the header does not have
        ("\n,,\npath,label,patient\n\na,b,1\n,,\nc,d,2\n,,\n,,\n", [5, 7]),
        ('path, label, patient\na, "b", 1\nc, "d", 2\n', [2, 3]),
        (",path,label,patient\n0,a,b,1\n1,c,d,2\n", [2, 3]),  # the index of a pandas table
        ("sep=,\npath,label,patient\na,b,1\nc,d,2\n", [3, 4]),
        ('note,path,label,patient\n"one;two\nthree",a,b,1\nx;y;z,c,d,2\n', [3, 4]),
        ("path;label;patient;a,b,c,d,e\na;b;1\nc;d;2;x,y\n", [2, 3]),  # more commas than semicolons
        ("label,path,label.1,patient\nb,a,x,1\nd,c,y,2\n", [2, 3]),
    ],
)
def test_blank_headings_lines_and_cells_do_not_count(content: str, index: list[int]) -> None:
    frame = read(content.encode())
    assert frame[HEADER].to_numpy().tolist() == [["a", "b", "1"], ["c", "d", "2"]]
    assert frame.index.tolist() == index


def test_a_missing_last_cell_is_empty() -> None:
    assert read(b"path,label,patient\na,b\nc,d,2\n")["patient"].tolist() == ["", "2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\na,b\n".encode("utf-16-le"), r"cannot be read \(it contains NUL characters\)"),
        (b"", r"t\.csv: cannot be read \(it is empty\)"),
        (b" \n,,\n", "it is empty"),
        (b"path,label\na,b\nc,Doe, Jane\n", r"t\.csv, line 3: has 3 cells, but the header has 2 columns.*quotes"),
        (b"path,label,label\na,b,c\n", "more than one column is named 'label'"),
        (b"path,label,label \na,b,c\n", "more than one column is named 'label'"),
        (b"path,Label,\na,b,\n", r"no column 'label'; its columns are path, Label\. Set the column names"),
        (b'path,label\na,"b\n', "cannot be read"),
        (b"PK\x03\x04....", r"is a workbook of a spreadsheet\. Save its sheet as CSV in UTF-8"),
        (b"\xd0\xcf\x11\xe0....", "is a workbook of a spreadsheet"),
        ("path,label\na,größer\n".encode("latin-1"), "cannot be read .*Save it as CSV in UTF-8"),
    ],
)
def test_a_table_that_is_not_clear_is_reported(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(content)


def parquet(folder: Path, table: pa.Table | pd.DataFrame) -> bytes:
    path = folder / "t.parquet"
    table.to_parquet(path) if isinstance(table, pd.DataFrame) else pq.write_table(table, path)
    return path.read_bytes()


def test_other_columns_of_a_parquet_file_do_not_matter(tmp_path: Path) -> None:
    """Lists, structures, durations, an index: whatever pandas or Arrow can store."""
    table = pa.table({
        "boxes": [[[1, 2]], []], "meta": [{"a": 1}, None], "path": ["a", "b"], "raw": [b"x", b"\xff"],
        "age": pa.array([1, 2], pa.duration("ns")), "label": pa.array(["x", "y"]).dictionary_encode(),
        "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int8())),
        "patient": pa.array([None, 7], pa.int64()),
    })  # fmt: skip
    frame = read(parquet(tmp_path, table), "t.parquet")
    assert list(frame) == ["path", "label", "patient"]
    assert (frame["path"].tolist(), frame["label"].tolist()) == (["a", "b"], ["x", "y"])
    assert frame.index.tolist() == [2, 3]


def test_columns_that_pandas_stored_as_index_are_read(tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["a", "b"], "label": ["x", "y"], "patient": [3, 4]}).set_index(
        ["patient", "path"]
    )
    frame = read(parquet(tmp_path, table), "t.parquet")
    assert frame.to_numpy().tolist() == [["a", "x", 3], ["b", "y", 4]]


def test_long_ids_keep_their_digits_beside_missing_ones(tmp_path: Path) -> None:
    ids = [2**53, 2**53 + 1, None]
    table = pa.table({"path": ["a", "b", "c"], "label": ["x"] * 3, "patient": pa.array(ids, pa.int64())})
    assert read(parquet(tmp_path, table), "t.parquet")["patient"].tolist() == ids


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[0], [1]], r"t\.parquet: the cells of the column 'label' are list<.*int64>, not text or numbers"),
        ([{"a": 1}, {"a": 2}], "column 'label' are struct"),
        ([b"x", b"y"], "column 'label' are binary"),
    ],
)
def test_a_parquet_column_without_single_values_is_reported(
    column: list[Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        read(parquet(tmp_path, pa.table({"path": ["a", "b"], "label": column})), "t.parquet")


def test_a_parquet_file_without_a_clear_column_is_reported(tmp_path: Path) -> None:
    content = parquet(tmp_path, pd.DataFrame({"path": ["a"], "dx": ["b"], "list": [[1]]}))
    with pytest.raises(UserError, match=r"no column 'label'; its columns are path, dx, list"):
        read(content, "t.parquet")
    twice = pa.table([pa.array(["a"])] * 3, names=["path", "label", "label"])
    with pytest.raises(UserError, match="more than one column is named 'label'"):
        read(parquet(tmp_path, twice), "t.parquet")
    for damaged in (content[:-20], b"PAR1", np.random.default_rng(0).bytes(500)):
        with pytest.raises(UserError, match=r"t\.parquet: cannot be read"):
            read(damaged, "t.parquet")

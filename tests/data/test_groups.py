"""Columns of the data that divide the patients into groups travel in the manifest."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.data.groups import with_groups
from medrobust.data.prepare import download, prepare
from medrobust.data.store import MANIFEST_COLUMNS, ImageStore
from tests.params import default_block

TABLE = """path,label,patient,sex,age,centre
a.png,low,p1,F,40,North
b.png,low,p2,M,60,South
c.png,high,p3,,75.5,North
d.png,high,p4,F,,South
"""


def stored(folder: Path, groups: dict[str, Any], table: str = TABLE) -> ImageStore:
    images = folder / "images"
    images.mkdir()
    for number, name in enumerate("abcd"):
        Image.fromarray(np.full((16, 16), 40 * number, np.uint8)).save(images / f"{name}.png")
    (images / "labels.csv").write_text(table)
    block = {
        "source": "archive", "path": str(images), "classes": ["low", "high"], "image_size": 16, "phantom": None,
        "table": {"file": "labels.csv"}, "groups": groups,
    }  # fmt: skip
    data = default_block(DataParams, "data", **block)
    download(data, folder / "raw", 0)
    prepare(data, folder / "raw", folder / "prepared")
    return ImageStore.open(folder / "prepared")


def test_columns_of_the_table_travel_in_the_manifest_as_categories_and_ranges(tmp_path: Path) -> None:
    store = stored(tmp_path, {"sex": "categories", "age": [0, 60, 75, 120], "centre": "categories"})
    assert list(store.manifest.columns) == [*MANIFEST_COLUMNS, "sex", "age", "centre"]
    assert store.header.groups == ["sex", "age", "centre"]
    assert store.manifest["sex"].tolist() == ["F", "M", "", "F"]
    assert store.manifest["age"].tolist() == ["0 to 60", "60 to 75", "75 to 120", ""]
    assert store.manifest["centre"].tolist() == ["North", "South", "North", "South"]


def test_columns_that_are_no_groups_are_not_read(tmp_path: Path) -> None:
    assert list(stored(tmp_path, {}).manifest.columns) == MANIFEST_COLUMNS


def test_a_column_that_the_table_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"labels\.csv: no column 'scanner'; its columns are path, label, patient"):
        stored(tmp_path, {"scanner": "categories"})


def test_a_source_without_a_table_has_no_column() -> None:
    with pytest.raises(
        UserError, match=r"data\.groups: the data of source medmnist have no column 'sex'\. Set data\."
    ):
        with_groups(pd.DataFrame({"id": ["a"]}), {"sex": "categories"}, "medmnist")


@pytest.mark.parametrize("cell", ["120.5", "-1", "old"])
def test_a_cell_outside_all_ranges_is_refused(cell: str) -> None:
    table = pd.DataFrame({"id": ["a", "b"], "age": ["120", cell]})
    with pytest.raises(
        UserError, match=rf"data\.groups\.age: b has '{cell}', which is in no range of \[0\.0, 60\.0"
    ):
        with_groups(table, {"age": [0, 60, 120]}, "archive")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"patient": "categories"}, r"data\.groups has patient, a column of the manifest"),
        ({"age": [60, 60]}, r"data\.groups\.age: \[60\.0, 60\.0\] does not rise"),
        ({"age": [60]}, "at least 2 items"),
        ({"se x": "categories"}, "Use letters, digits and _"),
    ],
)
def test_wrong_groups_are_refused(groups: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        default_block(DataParams, "data", groups=groups)

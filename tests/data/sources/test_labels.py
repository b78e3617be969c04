"""Class names in every spelling, and tables with every kind of error."""

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.data.prepare import download, prepare
from medrobust.data.sources.labels import LEFT_OUT, LabelMap
from medrobust.data.store import ImageStore
from tests.data.sources.samples import encoded
from tests.data.sources.test_files import tarred, zipped
from tests.params import default_block

ROWS = [
    {"path": "images/a 1.png", "label": "Non Demented", "patient": "p1", "slice": "3", "split": "train"},
    {"path": "images/é.png", "label": "mild_demented", "patient": "p2", "slice": "", "split": "Validation"},
    {"path": "images/c.png", "label": "NonDemented", "patient": "p3", "slice": "7", "split": "testing"},
    {
        "path": "images/d.png",
        "label": "Mild Demented",
        "patient": "",
        "kind": "synthetic",
        "parent": "images/é.png",
    },
]


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A folder of images without class folders; one name has another Unicode normal form than in the table."""
    root = tmp_path / "flat"
    (root / "images").mkdir(parents=True)
    for number, row in enumerate(ROWS):
        (root / unicodedata.normalize("NFD", row["path"])).write_bytes(encoded(number))
    (root / "images" / "unnamed.png").write_bytes(encoded(99))
    return root


def frame(change: dict[int, dict[str, str]] | None = None) -> pd.DataFrame:
    """The table, with changes by row."""
    rows = [{**row, **(change or {}).get(number, {})} for number, row in enumerate(ROWS)]
    return pd.DataFrame(rows).fillna("")


def store_of(path: Path, params: Any, folder: Path, table: dict[str, Any], **changes: Any) -> ImageStore:
    data = params(path=str(path), table=table, **changes)
    download(data, folder / "raw", seed=0)
    prepare(data, folder / "raw", folder / "prepared")
    return ImageStore.open(folder / "prepared")


def check(store: ImageStore) -> None:
    manifest = store.manifest.set_index("id")
    manifest.index = [unicodedata.normalize("NFC", name) for name in manifest.index]
    assert len(manifest) == 4
    assert manifest["label"].to_dict() == {
        "images/a 1.png": "Non Demented", "images/é.png": "Mild_Demented", "images/c.png": "Non Demented",
        "images/d.png": "Mild_Demented",
    }  # fmt: skip
    assert manifest["patient"].tolist() == ["p1", "p2", "p3", ""]
    assert manifest["slice"].fillna(-1).tolist() == [3, -1, 7, -1]
    assert manifest["published_split"].tolist() == ["train", "val", "test", ""]
    assert manifest["kind"].tolist() == ["real", "real", "real", "synthetic"]
    assert unicodedata.normalize("NFC", manifest["parent"].iloc[3]) == "images/é.png"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("location", ["inside", "beside"])
def test_a_table_lists_the_images(suffix: str, location: str, flat: Path, params: Any, tmp_path: Path) -> None:
    file = (flat if location == "inside" else tmp_path) / f"Tabelle 1.{suffix}"
    if suffix == "parquet":
        frame().to_parquet(file)
    else:
        frame().to_csv(file, index=False, encoding="utf-8-sig", sep="\t" if suffix == "tsv" else ",")
    check(store_of(flat, params, tmp_path, {"file": file.name if location == "inside" else str(file)}))


def test_paths_are_relative_to_the_folder_of_the_table(params: Any, tmp_path: Path) -> None:
    members = {f"top/{row['path']}": encoded(number) for number, row in enumerate(ROWS)}
    table = frame().assign(path=frame()["path"].str.replace("/", "\\"))
    path = zipped(tmp_path / "a.zip", {**members, "top/m.csv": table.to_csv(index=False).encode()})
    store = store_of(path, params, tmp_path, {"file": "m.csv"})
    assert store.manifest["id"].tolist() == [f"top/{row['path']}" for row in ROWS]
    assert store.manifest["parent"].iloc[3] == "top/images/é.png"


def test_a_name_without_folder_and_suffix_is_found_if_it_is_unique(params: Any, tmp_path: Path) -> None:
    """As in tables of skin lesions and fundus images: `ISIC_0027419` is in one of two folders."""
    names = ["part_1/ISIC_1.jpg", "part_2/ISIC_2.jpg", "part_2/ISIC_3.jpg", "part_1/same.jpg", "part_2/same.jpg"]
    members = {f"./{name}": encoded(number, kind="JPEG") for number, name in enumerate(names)}
    table = "image_id,dx,lesion_id\nISIC_1,nv,a\nISIC_2.jpg,mel,b\npart_2/ISIC_3.jpg,nv,c\n"
    members |= {"./ISIC_1.txt": b"x", "./meta.csv": table.encode()}
    path = tarred(tmp_path / "a.tar", members)
    columns = {"file": "meta.csv", "path": "image_id", "label": "dx", "patient": "lesion_id"}
    store = store_of(path, params, tmp_path, columns, classes=["nv", "mel"])
    assert store.manifest["id"].tolist() == [f"./{name}" for name in names[:3]]
    members["./meta.csv"] = (table + "same,nv,d\n").encode()
    with pytest.raises(UserError, match=r"line 5: 'same' may be \./part_1/same\.jpg or \./part_2/same\.jpg \("):
        store_of(tarred(path, members), params, tmp_path, columns, classes=["nv", "mel"])


def test_columns_may_have_other_names_and_types(flat: Path, params: Any, tmp_path: Path) -> None:
    table = frame().rename(columns={"path": "Datei", "label": "dx", "patient": "subject"})
    table = table.assign(dx=[0, 1, 0, 1], subject=np.array([1.0, 2.0, 3.0, np.nan]), split="").drop(
        columns="slice"
    )
    table.to_parquet(flat / "m.parquet")
    columns = {"file": "m.parquet", "path": "Datei", "label": "dx", "patient": "subject"}
    store = store_of(flat, params, tmp_path, columns, labels={0: "Non Demented", 1: "Mild_Demented"})
    assert store.manifest["patient"].tolist() == ["1", "2", "3", ""]
    assert store.header.counts == {"Non Demented": 2, "Mild_Demented": 2}


def test_labels_that_map_to_null_are_left_out_and_counted(flat: Path, params: Any, tmp_path: Path) -> None:
    frame({0: {"label": "unsure"}}).to_csv(flat / "m.csv", index=False)
    store = store_of(flat, params, tmp_path, {"file": "m.csv"}, labels={"Unsure": None})
    assert store.header.left_out == {"unsure": 1}
    assert store.header.skipped == []
    assert len(store.images) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {1: {"label": "severe"}},
            r"m\.csv: labels that are not a class: 'severe' \(1, first in line 3\)\. Use the classes Non Demented",
        ),
        (
            {1: {"path": "images/x.png"}},
            r"m\.csv, line 3: 'images/x.png' is not a file of the data; one of its files is images/a 1\.png \(",
        ),
        (
            {2: {"path": "images/a 1.png"}},
            r"m\.csv, line 4: 'images/a 1.png' is the same file as in line 2 \(1 of 4 rows repeat a file\)",
        ),
        (
            {1: {"path": "images"}},
            r"m\.csv, line 3: 'images' is a folder further up, with images/a 1\.png in it \(",
        ),
        ({3: {"parent": "images/x.png"}}, r"m\.csv, line 5: the parent 'images/x.png' is not a row of the table"),
        ({0: {"split": "holdout"}}, r"m\.csv, line 2: split is 'holdout'. Use one of: train, training, val"),
        ({3: {"kind": "fake"}}, r"m\.csv, line 5: kind is 'fake'. Use one of: real, synthetic"),
        ({0: {"slice": "3.5"}}, r"m\.csv, line 2: slice is '3.5'. Use a whole number"),
        ({2: {"patient": "p2"}}, r"patient p2: has the labels Mild_Demented and Non Demented \(1 such patients\)"),
    ],
)
def test_an_invalid_cell_is_reported_with_its_line(
    change: dict[int, dict[str, str]], message: str, flat: Path, params: Any, tmp_path: Path
) -> None:
    frame(change).to_csv(flat / "m.csv", index=False)
    with pytest.raises(UserError, match=message):
        store_of(flat, params, tmp_path, {"file": "m.csv"})
    assert not (tmp_path / "prepared").exists()


def test_a_row_without_a_file_may_be_skipped(flat: Path, params: Any, tmp_path: Path) -> None:
    frame({0: {"path": "gone.png"}}).to_csv(flat / "m.csv", index=False)
    store = store_of(flat, params, tmp_path, {"file": "m.csv"}, on_bad_image="skip")
    assert store.header.skipped == [{"id": "gone.png", "reason": "a row of the table without a file"}]
    assert len(store.images) == 3


def test_pictures_without_a_row_and_other_files_are_counted_and_named(
    flat: Path, params: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("extra.png", "scan.XML", "notes.xml", "LICENSE", "a.dcm"):
        (flat / "images" / name).write_bytes(encoded(50))
    frame({0: {"label": "unsure"}}).to_csv(flat / "m.csv", index=False)
    store = store_of(flat, params, tmp_path, {"file": "m.csv"}, labels={"Unsure": None})
    assert store.header.unused == [
        {"reason": "ending .dcm", "count": 1, "first": ["images/a.dcm"]},
        {"reason": "ending .xml", "count": 2, "first": ["images/notes.xml", "images/scan.XML"]},
        {"reason": "ending none", "count": 1, "first": ["images/LICENSE"]},
        {"reason": "no row in the table", "count": 2, "first": ["images/extra.png", "images/unnamed.png"]},
    ]
    printed = capsys.readouterr().out
    assert "1 file is not read (ending .dcm): images/a.dcm\n" in printed
    assert "2 files are not read (no row in the table): images/extra.png, images/unnamed.png\n" in printed


def test_a_table_none_of_whose_paths_is_a_file_stops_the_run(flat: Path, params: Any, tmp_path: Path) -> None:
    frame({n: {"path": f"elsewhere/{n}.png", "parent": ""} for n in range(4)}).to_csv(flat / "m.csv", index=False)
    for choice in ("fail", "skip"):
        with pytest.raises(UserError, match=r"line 2: 'elsewhere/0\.png' .*\(4 of 4 rows .*data\.path to"):
            store_of(flat, params, tmp_path, {"file": "m.csv"}, on_bad_image=choice)


def test_a_row_with_two_files_may_be_skipped(flat: Path, params: Any, tmp_path: Path) -> None:
    (flat / "again").mkdir()
    (flat / "again" / "c.png").write_bytes(encoded(51))
    frame({2: {"path": "c"}}).to_csv(flat / "m.csv", index=False)
    with pytest.raises(UserError, match=r"line 4: 'c' may be again/c\.png or images/c\.png \(1 of 4"):
        store_of(flat, params, tmp_path, {"file": "m.csv"})
    store = store_of(flat, params, tmp_path, {"file": "m.csv"}, on_bad_image="skip")
    assert store.header.skipped == [{"id": "c", "reason": "a row of the table with several files"}]
    assert store.header.unused[0]["count"] == 3


@pytest.mark.parametrize("missing", ["NA", "nan", "#N/A", "NULL", "None", "<NA>"])
def test_a_missing_value_is_no_patient(missing: str, flat: Path, params: Any, tmp_path: Path) -> None:
    frame({0: {"patient": missing}, 2: {"patient": missing}}).to_csv(flat / "m.csv", index=False)
    manifest = store_of(flat, params, tmp_path, {"file": "m.csv"}).manifest
    assert sorted(manifest["patient"]) == ["", "", "", "p2"]


def test_two_tables_of_one_name_are_not_clear(params: Any, tmp_path: Path) -> None:
    table = frame().to_csv(index=False).encode()
    members = {f"top/{row['path']}": encoded(number) for number, row in enumerate(ROWS)}
    path = zipped(tmp_path / "a.zip", {**members, "top/m.csv": table, "other/m.csv": b"path,label\n"})
    with pytest.raises(UserError, match=r"file: m\.csv: may be other/m\.csv or top/m\.csv\. Set it to a path"):
        store_of(path, params, tmp_path, {"file": "m.csv"})
    assert len(store_of(path, params, tmp_path, {"file": "top/m.csv"}).images) == 4


def test_whole_numbers_of_a_spreadsheet_are_one_patient(flat: Path, params: Any, tmp_path: Path) -> None:
    change = {0: {"patient": "7.0", "slice": "3.0"}, 2: {"patient": "7", "slice": "04"}, 1: {"patient": "7.5"}}
    frame(change).to_csv(flat / "m.csv", index=False)
    manifest = store_of(flat, params, tmp_path, {"file": "m.csv"}).manifest.sort_values("slice")
    assert manifest["patient"].tolist() == ["7", "7", "7.5", ""]
    assert manifest["slice"].tolist()[:2] == [3, 4]


@pytest.mark.parametrize(("choice", "images"), [("keep", 4), ("skip", 2)])
def test_a_patient_with_two_labels_is_kept_or_skipped(
    choice: str, images: int, flat: Path, params: Any, tmp_path: Path
) -> None:
    frame({2: {"patient": "p1"}, 0: {"label": "mild demented"}}).to_csv(flat / "m.csv", index=False)
    if choice == "skip":
        with pytest.raises(UserError, match="Non Demented: no image of this class"):
            store_of(flat, params, tmp_path, {"file": "m.csv"}, on_mixed_patient="skip")
        return
    store = store_of(flat, params, tmp_path, {"file": "m.csv"}, on_mixed_patient=choice)
    assert len(store.images) == images


def test_skipped_patients_are_listed(flat: Path, params: Any, tmp_path: Path) -> None:
    (flat / "images" / "e.png").write_bytes(encoded(7))
    rows = [*frame({2: {"patient": "p1"}, 0: {"label": "mild demented"}}).to_dict("records")]
    rows.append({"path": "images/e.png", "label": "Non Demented", "patient": "p5"})
    pd.DataFrame(rows).fillna("").to_csv(flat / "m.csv", index=False)
    store = store_of(flat, params, tmp_path, {"file": "m.csv"}, on_mixed_patient="skip")
    reason = "its patient has the labels Mild_Demented and Non Demented"
    assert store.header.skipped == [{"id": name, "reason": reason} for name in ("images/a 1.png", "images/c.png")]
    assert len(store.images) == 3


@pytest.mark.parametrize(
    ("table", "content", "message"),
    [
        ({"file": "none.csv"}, "path,label\n", r"data\.table\.file: none.csv: no such file"),
        ({}, "path,label\n", r"data\.table\.file: missing"),
        ({"file": "m.csv"}, "", r"m\.csv: cannot be read"),
        ({"file": "m.csv"}, "path,label\n\n", r"m\.csv: has no row below its header"),
        ({"file": "m.csv"}, 'path,label\n"a', r"m\.csv: cannot be read"),
        ({"file": "m.csv"}, "path:label\na:b\n", r"no column 'path', 'label'; its columns are path:label"),
        (
            {"file": "m.csv", "patient": "who"},
            "path,label\na,b\n",
            r"no column 'who'; its columns are path, label",
        ),
        ({"file": "m.csv"}, "path,label\n\xff\xfe,b\n", r"m\.csv: cannot be read .*UTF-8"),
    ],
)
def test_an_unusable_table_is_reported(
    table: dict[str, str], content: str, message: str, flat: Path, params: Any, tmp_path: Path
) -> None:
    (flat / "m.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        store_of(flat, params, tmp_path, table)


def test_exact_names_come_before_normalized_ones(params: Any) -> None:
    labels = LabelMap(params(classes=["grade+", "grade-", "Other Grade"], labels={"g": "grade+", "x": None}))
    assert labels.find("grade-") == "grade-"
    assert labels.find("grade") is None, "ambiguous"
    assert labels.find("other_grade") == "Other Grade"
    assert (labels.find("G"), labels.find("X"), labels.find("y")) == ("grade+", LEFT_OUT, None)


def test_params_that_contradict_each_other_are_refused(params: Any) -> None:
    for changes, message in (
        ({"classes": ["a", "b", "a"]}, "has a more than once"),
        ({"labels": {"x": "c"}}, "labels has c, which is not in data.classes"),
        ({"window": [5, 5]}, "window .* is empty"),
        ({"volume": {"range": [0.5, 0.5], "step": 1, "frame": None}}, "range .* is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            params(**changes)


@pytest.mark.parametrize(
    ("classes", "labels", "found"),
    [
        (["healthy", "ill"], {"0": "healthy", "1": "ill"}, {"1": "ill", "1.0": "ill", "0.00": "healthy"}),
        (["healthy", "ill"], {"0.0": "healthy", "1.0": "ill"}, {"1": "ill", "1.0": "ill", "0": "healthy"}),
        (["healthy", "ill"], {"0": "healthy", "1": "ill"}, {"-1": None, "-1.0": None, "+1": None, "10": None}),
        (["ER+", "normal"], {}, {"er+": "ER+", "ER-": None, "ER": None, "E R+": "ER+"}),
        (["HER2+", "HER2-"], {}, {"her2 +": "HER2+", "Her2-": "HER2-", "HER2": None}),
        (["10", "2"], {}, {"1.0": None, "1,0": None, "1 0": None, "2.": None, "2*": None, "2.0": "2"}),
        (["CDR0", "CDR05", "CDR1"], {}, {"CDR 0": "CDR0", "CDR 0.5": None, "CDR=0,5": None, "cdr_1": "CDR1"}),
        (["<3mm", "nodule"], {}, {"< 3mm": "<3mm", ">3mm": None, ">=3mm": None, "3mm": None}),
        (["NonDemented", "Very Mild"], {}, {"Non-Demented": "NonDemented", "non_demented": "NonDemented",
                                            "very-mild": "Very Mild", "VeryMild.": None}),
    ],
)  # fmt: skip
def test_signs_points_and_digits_of_a_label_have_a_meaning(
    classes: list[str], labels: dict[str, str], found: dict[str, str | None]
) -> None:
    known = LabelMap(default_block(DataParams, "data", source="archive", classes=classes, labels=labels))
    assert {raw: known.find(raw) for raw in found} == found


def test_an_uncertain_label_stops_the_run_with_its_rows(flat: Path, params: Any, tmp_path: Path) -> None:
    """As in CheXpert: 1.0, 0.0, -1.0 (uncertain)."""
    marks = {0: {"label": "1.0"}, 1: {"label": "-1.0"}, 2: {"label": "0.0"}, 3: {"label": "-1.0"}}
    frame(marks).to_csv(flat / "m.csv", index=False)
    classes = {"0": "ill", "1": "healthy"}
    with pytest.raises(UserError, match=r"'-1\.0' \(2, first in line 3, 5\)\. Use the classes .*'-1\.0': null"):
        store_of(flat, params, tmp_path, {"file": "m.csv"}, classes=["healthy", "ill"], labels=classes)
    known: dict[str, Any] = {"classes": ["healthy", "ill"], "labels": {**classes, "-1": None}}
    store = store_of(flat, params, tmp_path / "again", {"file": "m.csv"}, **known)
    assert store.header.left_out == {"-1.0": 2}
    assert sorted(store.manifest["label"]) == ["healthy", "ill"]

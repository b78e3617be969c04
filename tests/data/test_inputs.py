"""Files in use give the pixels that `prepare` stored, bit by bit; whatever is unusable is one message."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

from medrobust.core.params.data import DataParams, InputParams
from medrobust.data.inputs import Fault, InputImage, Reader
from medrobust.data.prepare import download, prepare
from medrobust.data.store import ImageStore
from tests.data.sources.samples import SAMPLES, slice_file, volume
from tests.params import default_block


def block(**changes: Any) -> DataParams:
    base: dict[str, Any] = {"ordered": False, "image_size": 24, "channels": 1, "phantom": None}
    return default_block(DataParams, "data", **{**base, **changes})


def reader(data: InputParams, *, slices: bool = True, **more: Any) -> Reader:
    own = {name: getattr(data, name) for name in InputParams.model_fields}
    return Reader(InputParams(**own), slices, **more)


def prepared(folder: Path, data: DataParams) -> ImageStore:
    download(data, folder / "raw", seed=1)
    prepare(data, folder / "raw", folder / "prepared")
    return ImageStore.open(folder / "prepared")


def read(read_by: Reader, *paths: Path) -> tuple[list[InputImage], list[Fault]]:
    found = list(read_by.find(paths).read())
    return [one for one in found if isinstance(one, InputImage)], [one for one in found if isinstance(one, Fault)]


def wave(size: int = 40) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return 120 + 100 * np.sin(rows / 5) * np.cos(columns / 7)


PICTURES = {
    "grey.png": Image.fromarray(wave().astype(np.uint8)),
    "grey.jpg": Image.fromarray(wave().astype(np.uint8)),
    "colour.jpeg": Image.fromarray(wave().astype(np.uint8)).convert("RGB"),
    "palette.gif": Image.fromarray(wave().astype(np.uint8)).convert("P"),
    "sixteen.tif": Image.fromarray((wave() * 256).astype(np.uint16)),
    "sixteen.png": Image.fromarray((wave(60) * 256).astype(np.uint16)),
    "transparent.png": Image.fromarray(np.full((30, 30, 4), 90, dtype=np.uint8)),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("window", [None, (1000.0, 50000.0)])
def test_pictures_have_the_pixels_that_prepare_stored(
    window: tuple[float, float] | None, channels: int, tmp_path: Path
) -> None:
    for number, (name, picture) in enumerate(PICTURES.items()):
        folder = tmp_path / "data" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name)
    data = block(
        source="archive", path=str(tmp_path / "data"), classes=["a", "b"], window=window, channels=channels
    )
    store = prepared(tmp_path, data)
    images, faults = read(reader(data), tmp_path / "data")
    assert not faults
    assert len(images) == len(PICTURES)
    for one in images:
        (row,) = np.flatnonzero(store.manifest["id"] == Path(one.file).relative_to(tmp_path / "data").as_posix())
        assert np.array_equal(one.pixels, store.images[row]), one.file
    picture = PICTURES["sixteen.tif"]
    (row,) = np.flatnonzero(store.manifest["id"].str.endswith("sixteen.tif"))
    assert np.array_equal(reader(data).fit(picture), store.images[row]), "a picture of Pillow is like its file"


@pytest.mark.parametrize("source", ["nifti", "dicom"])
@pytest.mark.parametrize("window", [None, (-200.0, 800.0)])
def test_slices_have_the_pixels_that_prepare_stored(
    source: str, window: tuple[float, float] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "published").mkdir()
    sample = SAMPLES[source](tmp_path / "published", monkeypatch)
    data = block(source=source, window=window, **sample)
    store = prepared(tmp_path, data)
    root = Path(sample["path"])
    images, faults = read(reader(data), *sorted(path for path in root.iterdir() if path.suffix != ".csv"))
    assert not faults
    assert len(images) == len(store.images)
    ids = store.manifest["id"].tolist()
    for one in images:
        name = f"{Path(one.volume).relative_to(root).as_posix()}#{one.slice:04d}"
        assert np.array_equal(one.pixels, store.images[ids.index(name)]), name
        assert one.patient == ("Doe^Jane" if source == "dicom" else "")


def test_arrays_have_the_pixels_that_prepare_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "published").mkdir()
    sample = SAMPLES["medmnist"](tmp_path / "published", monkeypatch)
    data = block(source="medmnist", **sample)
    store = prepared(tmp_path, data)
    images, faults = read(reader(data), Path(sample["path"]))
    assert not faults
    by_id = dict(zip(store.manifest["id"], store.images, strict=True))
    assert len(images) == len(by_id)
    for one in images:
        assert np.array_equal(one.pixels, by_id[one.file.partition("#")[2].replace("_images", "")])


def test_single_files_of_a_series_and_a_folder_are_the_same_series(tmp_path: Path) -> None:
    for index, height in enumerate((5.0, -2.5, 0.0)):
        values = np.random.default_rng(index).integers(900, 1300, (16, 16))
        slice_file(tmp_path / "s" / f"IM{index}.dcm", values, height, "1.2.3")
    data = block(source="dicom", path=str(tmp_path), classes=["a", "b"])
    whole, _ = read(reader(data), tmp_path / "s")
    single, _ = read(reader(data), *sorted((tmp_path / "s").iterdir()))
    assert [one.file for one in whole] == [one.file for one in single]
    assert [Path(one.file).name for one in whole] == ["IM1.dcm", "IM2.dcm", "IM0.dcm"], "in order of position"
    assert [one.slice for one in whole] == [0, 1, 2]


def test_several_series_in_a_folder_are_apart_and_companions_are_left_out(tmp_path: Path) -> None:
    values = np.full((16, 16), 1000)
    for number in range(4):
        slice_file(
            tmp_path / f"{number}.dcm", values, number % 2 * 2.0, f"1.2.{number // 2}", PatientID=f"p{number // 2}"
        )
    slice_file(tmp_path / "scout.dcm", values, 0.0, "1.2.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (tmp_path / "notes.txt").write_text("x")
    found = reader(block(source="dicom", path=None, classes=["a", "b"])).find([tmp_path])
    images = [one for one in found.read() if isinstance(one, InputImage)]
    assert [(one.patient, one.slice) for one in images] == [("p0", 0), ("p0", 1), ("p1", 0), ("p1", 1)]
    assert len({one.volume for one in images}) == 2
    assert sorted(Path(name).name for name in found.ignored) == ["notes.txt", "scout.dcm"]


def test_images_without_position_are_images_of_their_own(tmp_path: Path) -> None:
    for number in range(2):
        path = tmp_path / f"{number}.dcm"
        slice_file(path, np.full((16, 16), 1000 + number), 0.0, "1.2.3")
        dataset = pydicom.dcmread(path)
        del dataset.ImagePositionPatient, dataset.ImageOrientationPatient
        dataset.save_as(path)
    images, faults = read(reader(block(source="archive", path=None, classes=["a", "b"]), slices=False), tmp_path)
    assert not faults
    assert [(Path(one.file).name, one.slice, one.volume) for one in images] == [
        ("0.dcm", None, ""),
        ("1.dcm", None, ""),
    ]


def test_a_table_names_files_patients_and_labels(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        PICTURES["grey.png"].save(tmp_path / name)
    table = pd.DataFrame(
        {"path": ["a.png", "b.png", "c.png"], "patient": ["007", "", "1"], "label": ["x", "y", ""]}
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    images, faults = read(reader(block(source="archive", path=None, classes=["a", "b"])), tmp_path / "t.csv")
    assert [(one.patient, one.label) for one in images] == [("007", "x"), ("", "y")]
    assert [fault.reason for fault in faults] == ["no such file (a row of t.csv)"]


def write_bad(folder: Path) -> dict[str, str]:
    """One file of every kind of fault -> a part of the message."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(folder / "colour.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    PICTURES["grey.png"].save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:200])
    Image.fromarray(np.full((9, 9), np.nan, dtype=np.float32)).save(folder / "nan.tif")
    Image.fromarray(np.linspace(-5, 9, 81, dtype=np.float32).reshape(9, 9)).save(folder / "deep.tif")
    frames = [Image.new("L", (9, 9), level) for level in (0, 90)]
    frames[0].save(folder / "frames.tif", save_all=True, append_images=frames[1:])
    np.savez(folder / "volumes.npz", images=np.zeros((2, 9, 9, 9), dtype=np.uint8))
    np.savez(folder / "floats.npz", images=np.full((2, 9, 9), np.nan))
    np.savez(folder / "labels.npz", labels=np.zeros(3))
    (folder / "damaged.npz").write_bytes(b"PK\x03\x04 damaged")
    (folder / "damaged.nii").write_bytes(b"damaged")
    (folder / "damaged.dcm").write_bytes(b"damaged")
    return {
        "colour.png": "it is in colour, and the model was trained on grey images",
        "empty.png": "the file is empty", "text.jpg": "not an image", "cut.png": "truncated",
        "nan.tif": "it has NaN pixels", "deep.tif": "and the model was trained without data.window",
        "frames.tif": "it has 2 frames", "volumes.npz": "has volumes of uint8 with shape (9, 9, 9)",
        "floats.npz": "images has NaN pixels", "labels.npz": "has no array called images",
        "damaged.npz": "truncated or not an npz", "damaged.nii": "truncated or not a volume",
        "damaged.dcm": "is truncated or not a DICOM file",
    }  # fmt: skip


@pytest.mark.parametrize("one_by_one", [True, False])
def test_each_bad_file_is_one_message_and_the_good_one_is_read(one_by_one: bool, tmp_path: Path) -> None:
    expected = write_bad(tmp_path)
    PICTURES["grey.png"].save(tmp_path / "good.png")
    paths = sorted(tmp_path.iterdir()) if one_by_one else [tmp_path]
    images, faults = read(reader(block(source="archive", path=None, classes=["a", "b"])), *paths)
    assert [Path(one.file).name for one in images] == ["good.png"]
    reasons = {Path(fault.file).name: fault.reason for fault in faults}
    assert set(reasons) == set(expected)
    for name, part in expected.items():
        assert part in reasons[name], (name, reasons[name])


def test_colour_is_converted_if_that_is_wanted(tmp_path: Path) -> None:
    write_bad(tmp_path)
    data = block(source="archive", path=None, classes=["a", "b"])
    (one,), _ = read(reader(data, colour_as_grey=True), tmp_path / "colour.png")
    grey = Image.open(tmp_path / "colour.png").convert("L").resize((24, 24), Image.Resampling.BILINEAR)
    assert np.array_equal(one.pixels, np.asarray(grey))


def test_a_model_of_single_images_refuses_volumes_and_series(tmp_path: Path) -> None:
    volume(tmp_path / "v.nii", np.random.default_rng(0).integers(0, 900, (8, 8, 4)).astype(np.int16))
    for index in range(2):
        slice_file(tmp_path / "s" / f"{index}.dcm", np.full((16, 16), 1000), index * 2.0, "1.2.3")
    data = block(source="archive", path=None, classes=["a", "b"])
    images, faults = read(reader(data, slices=False), tmp_path / "v.nii", tmp_path / "s")
    assert not images
    for fault, what in zip(faults, ("volume", "series"), strict=True):
        assert f"is a {what} of slices, and the model was trained on single images" in fault.reason


@pytest.mark.parametrize("content", [{}, {"notes.txt": b"x"}, {".hidden.png": b"x"}])
def test_a_folder_without_images_is_a_fault_and_the_others_are_read(
    content: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for name, data in content.items():
        (tmp_path / "empty" / name).write_bytes(data)
    PICTURES["grey.png"].save(tmp_path / "a.png")
    paths = (tmp_path / "empty", tmp_path / "a.png")
    images, (fault,) = read(reader(block(source="archive", path=None, classes=["a", "b"])), *paths)
    assert [one.file for one in images] == [str(tmp_path / "a.png")]
    assert (fault.file, fault.reason[:18]) == (str(tmp_path / "empty"), "contains no image.")


def test_a_table_without_paths_is_a_fault_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,label\na.png,x\n")
    PICTURES["grey.png"].save(tmp_path / "a.png")
    paths = (tmp_path / "a.png", tmp_path / "t.csv")
    images, (fault,) = read(reader(block(source="archive", path=None, classes=["a", "b"])), *paths)
    assert len(images) == 1
    assert "no column 'path'" in fault.reason


def test_a_file_that_cannot_be_opened_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PICTURES["grey.png"].save(tmp_path / "a.png")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    _, (fault,) = read(reader(block(source="archive", path=None, classes=["a", "b"])), tmp_path / "a.png")
    assert fault.reason == "cannot be read (Permission denied)"
    _, (fault,) = read(reader(block(source="archive", path=None, classes=["a", "b"])), tmp_path / "none.png")
    assert fault.reason == "no such file"


@pytest.mark.parametrize("library", ["nibabel", "pydicom"])
def test_a_missing_library_is_named_with_its_extra_and_the_other_files_are_read(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume(tmp_path / "v.nii", np.zeros((8, 8, 4), dtype=np.int16))
    slice_file(tmp_path / "s" / "0.dcm", np.full((16, 16), 1000), 0.0, "1.2.3")
    PICTURES["grey.png"].save(tmp_path / "a.png")

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name=library)

    monkeypatch.setattr("medrobust.data.inputs.import_module", absent)
    scan = tmp_path / ("v.nii" if library == "nibabel" else "s/0.dcm")
    data = block(source="archive", path=None, classes=["a", "b"])
    images, (fault,) = read(reader(data), scan, tmp_path / "a.png")
    assert [one.file for one in images] == [str(tmp_path / "a.png")]
    assert fault.reason == f"{library} is not installed. Run: pip install medrobust[formats]"


def test_a_bomb_in_an_npz_is_no_crash(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + b"x" * 20)
    _, (fault,) = read(reader(block(source="archive", path=None, classes=["a", "b"])), tmp_path / "x.npz")
    assert "truncated or not an npz" in fault.reason

"""From raw data to the store: each file is read once, bad ones are reported, and writes are atomic."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medrobust.core.errors import UserError
from medrobust.data import prepare as module
from medrobust.data.images import Raster
from medrobust.data.prepare import download, prepare
from medrobust.data.sources.base import Listing, Release
from medrobust.data.store import ImageStore
from tests.data.sources.samples import encoded


def test_a_bad_image_stops_the_run_or_is_counted(folder: Path, params: Any, tmp_path: Path) -> None:
    bad = next(folder.rglob("*.png"))
    bad.write_bytes(b"no image at all")
    data = params(path=str(folder))
    download(data, tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match=r"cannot be decoded \(not an image\).*on_bad_image: skip"):
        prepare(data, tmp_path / "raw", tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()
    prepare(params(path=str(folder), on_bad_image="skip"), tmp_path / "raw", tmp_path / "prepared")
    store = ImageStore.open(tmp_path / "prepared")
    assert len(store.images) == 11
    assert store.header.skipped == [{"id": bad.relative_to(folder).as_posix(), "reason": "not an image"}]


def listing(count: int, read: Any, **more: Any) -> Listing:
    """A listing of images that alternate between two classes."""
    table = pd.DataFrame({"id": [f"{n:03d}" for n in range(count)]})
    table["label"] = [("Non Demented", "Mild_Demented")[n % 2] for n in range(count)]
    table = table.assign(patient="", slice=None, kind="real", parent="", published_split="")
    return Listing(table, read, **more)


@pytest.fixture
def run(params: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(listing, changes) -> the store that `prepare` makes of it."""

    def make(found: Listing, **changes: Any) -> ImageStore:
        class Source:
            @staticmethod
            def listing(data: Any, folder: Path) -> Listing:
                return found

        monkeypatch.setattr(module, "get_source", lambda name: Source)
        prepare(params(**changes), tmp_path / "raw", tmp_path / "prepared")
        return ImageStore.open(tmp_path / "prepared")

    return make


def test_each_file_is_read_once_and_its_hash_is_passed_on(run: Any) -> None:
    reads: list[str] = []

    def read(name: str) -> bytes:
        reads.append(name)
        return encoded(int(name))

    def recover(table: pd.DataFrame) -> tuple[pd.DataFrame, Release]:
        return table.assign(patient="p" + table["sha256"].str[:3]), Release("a", "b", "c", "hashes")

    store = run(listing(100, read, recover=recover))
    assert sorted(reads) == [f"{n:03d}" for n in range(100)]
    assert (store.manifest["patient"] == "p" + store.manifest["sha256"].str[:3]).all()
    assert (store.header.licence, store.header.citation, store.header.verified) == ("a", "b", "hashes")


def test_rows_stay_aligned_after_skipped_images(run: Any) -> None:
    """More images than a block, so that rows move between blocks."""

    def read(name: str) -> bytes | Raster:
        number = int(name)
        if number % 7 == 0:
            return b"text"
        pixels = np.full((16, 16), number % 250, dtype=np.uint8)
        return Raster(pixels, pixels > 100)

    store = run(listing(3000, read, masks=True), on_bad_image="skip")
    numbers = store.manifest["id"].astype(int).to_numpy()
    assert len(numbers) == 3000 - 429
    assert np.array_equal(store.images[:, 3, 3], numbers % 250)
    assert store.masks is not None
    assert np.array_equal(store.masks[:, 3, 3], numbers % 250 > 100)
    assert [row["id"] for row in store.header.skipped[:3]] == ["000", "007", "014"]


def test_a_class_whose_images_are_all_skipped_is_an_error(run: Any) -> None:
    with pytest.raises(UserError, match="no image of this class; 5 images were skipped, the first is 001: the fi"):
        run(listing(10, lambda name: encoded(1) if int(name) % 2 == 0 else b""), on_bad_image="skip")


def test_patterns_that_the_source_does_not_use_are_refused(run: Any) -> None:
    with pytest.raises(UserError, match=r"data\.ignore: data\.source: .* does not use it\. Set it to \[\]"):
        run(listing(4, lambda name: encoded(1)), ignore=["*_mask*"])


def test_the_order_of_the_grades_is_printed(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    line = "prepare: the classes are grades, lowest first: Non Demented, Mild_Demented (data.ordered)\n"
    run(listing(4, lambda name: encoded(1)))
    assert line in capsys.readouterr().out
    run(listing(4, lambda name: encoded(1)), ordered=False)
    assert "grades" not in capsys.readouterr().out


def test_two_images_of_one_id_are_refused(run: Any) -> None:
    found = listing(4, lambda name: encoded(1))
    found.table["id"] = ["a", "b", "b", "c"]
    with pytest.raises(UserError, match="b: occurs twice in the data"):
        run(found)


def test_the_header_records_depth_and_notes_of_the_source(run: Any) -> None:
    values = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 200).save(values, "PNG")
    found = listing(
        4, lambda name: values.getvalue() if name == "001" else encoded(int(name)),
        release=Release("a", "b", "c", "counts"), left_out={"severe": 3}, skipped=[{"id": "x", "reason": "gone"}],
    )  # fmt: skip
    header = run(found).header
    assert (header.raw_bit_depth, header.verified, header.left_out) == (16, "counts", {"severe": 3})
    assert header.skipped == [{"id": "x", "reason": "gone"}]


def test_a_bug_in_a_source_is_not_a_bad_image(run: Any) -> None:
    def read(name: str) -> bytes:
        raise KeyError(name)

    with pytest.raises(KeyError):
        run(listing(4, read), on_bad_image="skip")


def test_a_full_disk_is_reported_before_decoding(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"images\.npy: needs 1\.02e-06 GB, but only 1e-06 GB are free\. Free"):
        run(listing(4, lambda name: pytest.fail("no image must be read")))


def deep(top: int, seed: int = 0, channels: int = 1) -> bytes:
    """A 16-bit PNG (or, in colour, TIFF) with intensities below `top`."""
    import cv2

    shape = (16, 16) if channels == 1 else (16, 16, channels)
    values = np.random.default_rng(seed).integers(0, top, shape).astype(np.uint16)
    return bytes(cv2.imencode(".png" if channels == 1 else ".tiff", values)[1].tobytes())


def test_twelve_bit_images_in_sixteen_bit_files_need_a_window(run: Any) -> None:
    found = listing(40, lambda name: deep(4096, int(name)))
    with pytest.raises(UserError, match=r"window: None: 40 of 40 .* only 16 of 256 grey levels.*\[0, 4095\]"):
        run(found)
    assert run(found, window=(0, 4095)).images.max() > 250


@pytest.mark.parametrize(
    ("tops", "dark"),
    [
        ([4096, 4096, 4096, 65536], "3 of 4 .* only 16 of 256 grey levels \\(first 000\\)"),
        ([65536, 65536, 1024, 65536], "1 of 4 .* only 4 of 256 grey levels \\(first 002\\)"),
        ([65536, 8192, 4096, 65536], "2 of 4 .* only 32 of 256 grey levels \\(first 001\\)"),
        ([256, 65536, 65536, 65536], "1 of 4 .* only 1 of 256 grey levels \\(first 000\\)"),
        ([0, 0, 0, 4096], "1 of 1 .* only 16 of 256 grey levels \\(first 003\\)"),  # 0: an image of 8 bits
        ([65536, 16384, 65536, 32768], ""),
        ([0, 0, 0, 65536], ""),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_deep_image_counts_by_itself(tops: list[int], dark: str, channels: int, run: Any) -> None:
    def read(name: str) -> bytes:
        top = tops[int(name)]
        return deep(top, int(name), channels) if top else encoded(int(name))

    for skip in ("fail", "skip"):
        if dark:
            with pytest.raises(UserError, match=rf"params\.yaml: data\.window: None: {dark}"):
                run(listing(4, read), channels=channels, on_bad_image=skip)
        else:
            assert run(listing(4, read), channels=channels, on_bad_image=skip).header.raw_bit_depth == 16


def test_a_window_may_leave_single_images_dark(run: Any) -> None:
    tops = [65536, 4096, 65536, 4096]
    store = run(listing(4, lambda name: deep(tops[int(name)], int(name))), window=(0, 65535))
    assert store.images.max(axis=(1, 2)).tolist()[1::2] == [16, 16]
    ends = [Raster(np.full((16, 16), level, dtype=np.uint8), bits=12) for level in (0, 200, 200, 0)]
    assert run(listing(4, lambda name: ends[int(name)])).images[0].max() == 0, "the end of a volume"
    with pytest.raises(UserError, match="4 of 4 images of more than 8 bits fill only 1 of 256 grey levels"):
        run(listing(4, lambda name: ends[0]))

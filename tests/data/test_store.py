"""The prepared store: damage is reported, data larger than memory works, and images that fit stay on a GPU."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from medrobust.core.errors import UserError
from medrobust.data.store import GPU_SHARE, Header, ImageStore, open_splits, pixel_hash, write_store

SIZE = 8


def write(folder: Path, count: int, size: int = SIZE, channels: int = 1, fill: bool = True) -> pd.DataFrame:
    """Write a store of random pixels (or sparse files); return a split table with half in train, half in test."""
    folder.mkdir(exist_ok=True)
    shape = (count, size, size, *((3,) if channels == 3 else ()))
    pixels = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, shape)
    if fill:
        pixels[:] = np.random.default_rng(0).integers(0, 256, shape)
    pixels.flush()
    ids = [f"{n:06d}" for n in range(count)]
    labels = [("a", "b")[n % 2] for n in range(count)]
    manifest = pd.DataFrame({"id": ids, "sha256": "", "label": labels, "patient": "", "slice": None})
    manifest = manifest.assign(kind="real", parent="", published_split="")
    header = Header("test", ["a", "b"], True, size, channels, count, 0, {}, "", "", "", "")
    write_store(folder, manifest, header)
    split = ["train" if n % 4 < 2 else "test" for n in range(count)]
    return pd.DataFrame({"id": ids, "split": split, "label": labels, "reason": ""})


def change_header(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "header.json").read_text())
    (folder / "header.json").write_text(json.dumps({**content, **changes}))


def rewrite(folder: Path, array: np.ndarray, name: str = "images.npy") -> None:
    np.save(folder / name, array, allow_pickle=True)


def rewrite_manifest(folder: Path, change: Any) -> None:
    change(pd.read_csv(folder / "manifest.csv")).to_csv(folder / "manifest.csv", index=False)


def cut(path: Path, end: int) -> None:
    path.write_bytes(path.read_bytes()[:end])


DAMAGE: dict[str, Any] = {
    "no folder": lambda folder: folder.rename(folder.with_name("gone")),
    "no images": lambda folder: (folder / "images.npy").unlink(),
    "truncated": lambda folder: cut(folder / "images.npy", -1),
    "text": lambda folder: (folder / "images.npy").write_text("I am a text"),
    "objects": lambda folder: rewrite(folder, np.array([None] * 12)),
    "floats": lambda folder: rewrite(folder, np.zeros((12, SIZE, SIZE), dtype=np.float32)),
    "other size": lambda folder: rewrite(folder, np.zeros((12, 9, 9), dtype=np.uint8)),
    "fewer rows": lambda folder: rewrite_manifest(folder, lambda table: table.iloc[:-1]),
    "fewer masks": lambda folder: rewrite(folder, np.zeros((11, SIZE, SIZE), dtype=bool), "masks.npy"),
    "no column": lambda folder: rewrite_manifest(folder, lambda table: table.drop(columns="patient")),
    "bytes": lambda folder: (folder / "manifest.csv").write_bytes(bytes(range(256))),
    "half a header": lambda folder: cut(folder / "header.json", 50),
    "old header": lambda folder: change_header(folder, colour="mauve"),
}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no folder", r"header\.json: no such file. Run `dvc pull`, or `dvc repro`"),
        ("no images", r"images\.npy: cannot be read .*Run `dvc repro --force prepare`"),
        ("truncated", r"images\.npy: cannot be read"),
        ("text", r"images\.npy: cannot be read"),
        ("objects", r"images\.npy: cannot be read"),
        ("floats", r"float32 images of \(8, 8\), the header says uint8 of \(8, 8\)"),
        ("other size", r"uint8 images of \(9, 9\), the header says uint8 of \(8, 8\)"),
        ("fewer rows", r"12 images, 11 manifest rows, 12 in the header"),
        ("fewer masks", r"12 images, 12 manifest rows, 12 in the header, 11 masks"),
        ("no column", r"manifest\.csv: lacks the columns patient"),
        ("bytes", r"manifest\.csv: damaged table"),
        ("half a header", r"header\.json: damaged JSON"),
        ("old header", r"header\.json: is not a header of this version .*colour"),
    ],
)
def test_a_damaged_store_is_reported_with_its_remedy(fault: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "store", 12)
    DAMAGE[fault](tmp_path / "store")
    with pytest.raises(UserError, match=message):
        ImageStore.open(tmp_path / "store")


def test_splits_are_read_with_their_store(tmp_path: Path) -> None:
    split = write(tmp_path, 12)
    split.to_csv(tmp_path / "split.csv", index=False)
    data = open_splits(tmp_path, tmp_path / "split.csv")
    pd.testing.assert_frame_equal(data.table, split)
    assert data.subset("test").ids.tolist() == data.store.subset(split, "test").ids.tolist()


def test_a_split_of_other_images_is_refused(tmp_path: Path) -> None:
    split = write(tmp_path, 12)
    store = ImageStore.open(tmp_path)
    with pytest.raises(UserError, match="lists other images than data/prepared"):
        store.subset(split.iloc[::-1], "train")
    with pytest.raises(UserError, match="no image is in 'val'"):
        store.subset(split, "val")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_holds_the_stored_pixels(channels: int, tmp_path: Path) -> None:
    split = write(tmp_path, 12, channels=channels)
    subset = ImageStore.open(tmp_path).subset(split, "test")
    batch = subset.batch([4, 0])
    stored = np.load(tmp_path / "images.npy")[[10, 2]].astype(np.float32) / np.float32(255)
    expected = stored[:, None] if channels == 1 else stored.transpose(0, 3, 1, 2)
    assert batch.dtype == torch.float32
    assert np.array_equal(batch.numpy(), expected)
    assert batch.is_contiguous()
    assert subset.ids.tolist() == [f"{n:06d}" for n in (2, 3, 6, 7, 10, 11)]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_subset_goes_to_the_device_where_it_fits(channels: int, tmp_path: Path) -> None:
    split = write(tmp_path, 3000, channels=channels)
    subset = ImageStore.open(tmp_path).subset(split, "train")
    size = 1500 * SIZE * SIZE * channels
    assert subset.resident("cpu") is subset, "on the CPU nothing is copied"
    assert subset.resident("cpu", free=int(size / GPU_SHARE) - 1).on_device is None
    resident = subset.resident("cpu", free=int(size / GPU_SHARE) + 1)
    assert resident.on_device is not None
    assert resident.on_device.pixels.numel() == size, "only the images of the subset"
    rows = np.array([1499, 0, 7])
    assert torch.equal(resident.batch(rows), subset.batch(rows))
    assert torch.equal(resident.batch(range(1500)), subset.batch(range(1500)))
    part = replace(resident, rows=resident.rows[rows])  # as `Subset.take` does
    assert torch.equal(part.batch([2, 0]), subset.batch([7, 1499]))


@pytest.mark.gpu
def test_batches_on_a_gpu_equal_those_on_the_cpu(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    split = write(tmp_path, 3000)
    subset = ImageStore.open(tmp_path).subset(split, "train")
    resident = subset.resident("cuda")
    assert resident.on_device is not None
    assert resident.on_device.pixels.is_cuda
    assert torch.equal(resident.batch(range(1500)).cpu(), subset.batch(range(1500)))


def test_the_pixel_hash_ignores_the_header_of_the_file(tmp_path: Path) -> None:
    import hashlib

    array = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    for version in ((1, 0), (2, 0)):
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array(file, array, version)
        assert pixel_hash(tmp_path / "a.npy") == hashlib.sha256(array.tobytes()).hexdigest()


def test_the_header_survives_a_round_trip(tmp_path: Path) -> None:
    write(tmp_path, 12)
    header = ImageStore.open(tmp_path).header
    assert Header(**asdict(header)) == header


READ_ALL = """
import sys
from medrobust.data.store import open_splits
data = open_splits(sys.argv[1], sys.argv[1] + "/split.csv")
subset = data.subset("train")
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024
subset.batch(range(8))
before = anonymous()
for start in range(0, len(subset), int(sys.argv[2])):
    assert float(subset.batch(range(start, min(start + 8, len(subset)))).sum()) == 0
print(data.store.images.nbytes, len(subset), anonymous() - before)
"""


def read_sparse_store(folder: Path, stride: int) -> tuple[float, int, float]:
    """Open a sparse store of 30 GB in a separate process and read 8 of every `stride` images of its subset.

    Returns:
        Bytes of the array, images of the subset, and growth of the process's anonymous memory in MiB (pages of the
        mapped file do not count: the system reclaims them when it needs memory).
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc to measure memory")
    size, channels = 512, 3
    count = 30_000_000_000 // (size * size * channels) + 1
    write(folder, count, size, channels, fill=False).to_csv(folder / "split.csv", index=False)
    if (folder / "images.npy").stat().st_blocks * 512 > 1e9:
        pytest.skip("the file system does not support sparse files")
    command = [sys.executable, "-c", READ_ALL, str(folder), str(stride)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    numbers = done.stdout.split()
    return float(numbers[0]), int(numbers[1]), float(numbers[2])


def test_a_store_of_30_gb_is_read_in_little_memory(tmp_path: Path) -> None:
    size, images, grown = read_sparse_store(tmp_path, stride=400)
    assert size > 30e9
    assert images > 19_000
    assert grown < 200, "MiB"

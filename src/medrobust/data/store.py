"""The prepared data set: a memory-mapped uint8 array of images, a manifest with one row per image, a header."""

import hashlib
import math
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import MANIFEST
from medrobust.core.records import read_json, read_table, write_json, write_table

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "val", "test")
#: Columns of manifest.csv, which groups follow (`Header.groups`); all are text except `slice`.
MANIFEST_COLUMNS = [*MANIFEST]
PREPARE_AGAIN = "Run `dvc repro --force prepare`"
#: Share of a GPU's free memory that the images of one subset may use.
GPU_SHARE = 0.25
#: Images copied to the GPU at a time.
BLOCK = 1024


@dataclass(frozen=True)
class Header:
    """Facts about the whole data set; the content of `header.json`."""

    source: str
    classes: list[str]
    ordered: bool
    image_size: int
    channels: int
    images: int
    patients: int
    counts: dict[str, int]
    licence: str
    citation: str
    url: str
    sha256: str
    bit_depth: int = 8  # of the stored images
    raw_bit_depth: int = 8  # largest bit depth among the published images
    skipped: list[dict[str, str]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    unused: list[dict[str, Any]] = field(default_factory=list)  # files that are not read: reason, count, first
    groups: list[str] = field(default_factory=list)  # columns of the manifest beside MANIFEST_COLUMNS
    verified: str = "nothing"
    doubt: str = ""  # why the images may not be the published ones


@dataclass(frozen=True)
class ImageStore:
    """A prepared data set on disk; pixels are read when a batch needs them."""

    images: np.ndarray  # uint8, N×H×W for grey and N×H×W×3 for colour, memory-mapped
    manifest: pd.DataFrame  # one row per image, in the order of `images`
    header: Header
    masks: np.ndarray | None = None  # bool, N×H×W, memory-mapped; None if the source has none

    @classmethod
    def open(cls, folder: Path | str) -> "ImageStore":
        """Open a folder that `write_store` filled.

        Raises:
            UserError: a file is missing or damaged, or the files disagree about the number or shape of the images.
        """
        folder = Path(folder)
        header, manifest = read_header(folder / "header.json"), read_manifest(folder / "manifest.csv")
        images = _open_array(folder / "images.npy")
        masks = _open_array(folder / "masks.npy") if (folder / "masks.npy").exists() else None
        if not len(images) == len(manifest) == header.images or (masks is not None and len(masks) != len(images)):
            found = f"{len(images)} images, {len(manifest)} manifest rows, {header.images} in the header"
            found += f", {len(masks)} masks" if masks is not None else ""
            raise UserError(str(folder), found, PREPARE_AGAIN)
        shape = (header.image_size, header.image_size, *((3,) if header.channels == 3 else ()))
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            found = f"{images.dtype} images of {images.shape[1:]}, the header says uint8 of {shape}"
            raise UserError(str(folder), found, PREPARE_AGAIN)
        return cls(images, manifest, header, masks)

    def subset(self, split: pd.DataFrame, name: str) -> "Subset":
        """The images that the split table assigns to `name` (train, val or test), in the order of the manifest.

        Raises:
            UserError: no image is in that split, or the table lists other images than the manifest.
        """
        if list(split["id"]) != list(self.manifest["id"]):
            raise UserError("data/split.csv", "lists other images than data/prepared", "Run `dvc repro split`")
        rows = np.flatnonzero(split["split"].to_numpy() == name)
        if not len(rows):
            raise UserError("data/split.csv", f"no image is in {name!r}", "Change split.val or split.test")
        classes = [label for label in self.header.classes if (split["label"] == label).any()]
        index = {label: number for number, label in enumerate(classes)}
        ids, patients = (self.manifest[name].to_numpy()[rows].astype(str) for name in ("id", "patient"))
        patients = np.where(patients != "", patients, np.char.add("?", ids))
        labels = np.array([index[label] for label in split["label"].to_numpy()[rows]], dtype=np.int64)
        return Subset(self.images, rows, labels, ids, patients, classes, store_masks=self.masks)


@dataclass(frozen=True)
class SplitStore:
    """A store with its split table (`id`, `split`, `label` and `reason` per image, in the manifest's order)."""

    store: ImageStore
    table: pd.DataFrame

    @property
    def hashes(self) -> dict[str, str]:
        """Hashes of the images (`data`) and of the split table (`split`); no image is read."""
        table = self.table.to_csv(index=False).encode()
        return {"data": self.store.header.sha256, "split": hashlib.sha256(table).hexdigest()[:16]}

    def subset(self, name: str) -> "Subset":
        """The images of train, val or test; see `ImageStore.subset`."""
        return self.store.subset(self.table, name)


@dataclass(frozen=True)
class DevicePixels:
    """Images of a store on a device."""

    pixels: "torch.Tensor"  # uint8, n×H×W or n×H×W×3
    rows: np.ndarray  # int, n, ascending; their rows in the store

    def take(self, rows: np.ndarray) -> "torch.Tensor":
        """The images at these rows of the store, which must be among `self.rows`."""
        import torch

        positions = torch.from_numpy(np.searchsorted(self.rows, rows))
        return self.pixels[to_device(positions, self.pixels.device)]


@dataclass(frozen=True)
class Subset:
    """Some images of a store, with their labels."""

    store_images: np.ndarray  # all images of the store
    rows: np.ndarray  # int, n; rows of the subset's images in `store_images`
    labels: np.ndarray  # int64, n; index into `classes`
    ids: np.ndarray  # text, n
    patients: np.ndarray  # text, n; an image without a known patient is a patient of its own (`?<id>`)
    classes: list[str]  # after merging, in order of grade
    on_device: "DevicePixels | None" = None  # the subset's pixels on a GPU, if `resident` copied them there
    store_masks: np.ndarray | None = None  # of all images of the store, bool, N×H×W; None if the source has none

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: np.ndarray) -> Self:
        """The images at these positions of the subset."""
        columns = {name: getattr(self, name)[positions] for name in ("rows", "labels", "ids", "patients")}
        return replace(self, **columns)

    def evenly_spaced(self, most: int) -> "Subset":
        """At most `most` images, evenly spaced in the subset's order, which keeps patients and classes mixed."""
        return self.take(np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(int)))

    def batch(self, indices: Any) -> "torch.Tensor":
        """Float32 images in [0, 1], n×C×H×W, at the given positions of the subset; on the CPU unless resident."""
        import torch

        rows = self.rows[np.asarray(indices)]
        pixels = torch.from_numpy(self.store_images[rows]) if self.on_device is None else self.on_device.take(rows)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        # Divide by a tensor: for a Python number, torch on a GPU multiplies by the reciprocal, which rounds
        # differently.
        return pixels.contiguous().float().div_(torch.full((), 255.0, device=pixels.device))

    def masks(self, indices: Any) -> "torch.Tensor":
        """Masks of the regions that the publisher outlined, bool n×1×H×W, at the given positions of the subset.

        Raises:
            UserError: the source has no masks.
        """
        import torch

        if self.store_masks is None:
            raise UserError("data/prepared", "has no masks.npy", "Use a data source that provides masks")
        return torch.from_numpy(self.store_masks[self.rows[np.asarray(indices)]])[:, None]

    def resident(self, device: "torch.device | str", free: int | None = None) -> "Subset":
        """Copy the subset's uint8 pixels to a GPU if they fit into its `free` bytes (None = query CUDA).

        Otherwise, and on the CPU, return the subset unchanged.
        """
        import torch

        device = torch.device(device)
        if free is None:
            free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        shape = (len(self), *self.store_images.shape[1:])
        if math.prod(shape) > GPU_SHARE * free:
            return self
        pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        rows = np.sort(self.rows)
        for start in range(0, len(self), BLOCK):
            block = torch.from_numpy(self.store_images[rows[start : start + BLOCK]])
            pixels[start : start + BLOCK] = block.to(device)
        return replace(self, on_device=DevicePixels(pixels, rows))

    def targets(self, indices: Any) -> "torch.Tensor":
        """Labels, int64 n, at the given positions of the subset."""
        import torch

        return torch.from_numpy(self.labels[np.asarray(indices)])


def to_device(tensor: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """Copy a tensor to a device without waiting for the work that a GPU still has queued."""
    # CUDA would wait for queued work before it copies pageable memory.
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def open_splits(prepared: Path | str, split: Path | str) -> SplitStore:
    """Open a prepared store (data/prepared) with its split table (data/split.csv).

    Raises:
        UserError: a file is missing or damaged.
    """
    # All columns are text, also where ids or class names are numbers.
    return SplitStore(ImageStore.open(prepared), read_table(split, dtype=str, keep_default_na=False))


def read_header(path: Path | str) -> Header:
    """Read `header.json`.

    Raises:
        UserError: it is missing, damaged, or written by another version of medrobust.
    """
    content = read_json(path)
    try:
        return Header(**content)
    except TypeError as error:
        raise UserError(str(path), f"is not a header of this version ({error})", PREPARE_AGAIN) from None


def read_manifest(path: Path | str) -> pd.DataFrame:
    """Read `manifest.csv`; empty text and a missing slice mean unknown.

    Raises:
        UserError: it is missing or damaged, or lacks a column.
    """
    manifest = read_table(path, dtype=str, keep_default_na=False)
    if missing := [name for name in MANIFEST_COLUMNS if name not in manifest]:
        raise UserError(str(path), f"lacks the columns {', '.join(missing)}", PREPARE_AGAIN)
    slices = pd.to_numeric(manifest["slice"], errors="coerce")
    return manifest.assign(slice=slices.astype("Int64" if slices.isna().any() else "int64"))


def pixel_hash(path: Path) -> str:
    """The sha256 of an array file's data without its header, which may differ between versions of NumPy."""
    array = np.load(path, mmap_mode="r")
    with path.open("rb") as file:
        file.seek(-array.nbytes, os.SEEK_END)
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_store(folder: Path, manifest: pd.DataFrame, header: Header) -> None:
    """Write `manifest.csv` and `header.json` beside an existing `images.npy`."""
    write_table(folder / "manifest.csv", manifest[[*MANIFEST_COLUMNS, *header.groups]])
    write_json(folder / "header.json", asdict(header))


def _open_array(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(str(path), f"cannot be read ({error})", PREPARE_AGAIN) from None
    return array

"""The prepared data set: one memory-mapped uint8 array, one manifest row an image, one header."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medrobust.errors import UserError
from medrobust.records import read_json, read_table, write_json, write_table

if TYPE_CHECKING:
    import torch

#: Columns of manifest.csv; all text but `slice`.
MANIFEST = ["id", "sha256", "label", "patient", "slice", "kind", "parent", "published_split"]
TEXT: Any = {name: str for name in MANIFEST if name != "slice"}


@dataclass(frozen=True)
class Header:
    """What the whole data set has in common; `header.json`."""

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
    bit_depth: int = 8
    skipped: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class ImageStore:
    """A prepared data set on disk; the pixels stay there until a batch asks for them.

    Attributes:
        images: uint8, N×H×W for grey and N×H×W×3 for colour, memory-mapped.
        manifest: one row an image, in the order of `images`.
        header: what the images have in common.
    """

    images: np.ndarray
    manifest: pd.DataFrame
    header: Header

    @classmethod
    def open(cls, folder: Path | str) -> "ImageStore":
        """Open a folder that `write_store` filled.

        Raises:
            UserError: a file is missing or damaged, or the three disagree about the number of images.
        """
        folder = Path(folder)
        header, manifest = read_header(folder / "header.json"), read_manifest(folder / "manifest.csv")
        try:
            images = np.load(folder / "images.npy", mmap_mode="r")
        except (OSError, ValueError) as error:
            found = f"cannot be read ({error})"
            raise UserError(str(folder / "images.npy"), found, "Run `dvc repro prepare`") from None
        if not len(images) == len(manifest) == header.images:
            found = f"{len(images)} images, {len(manifest)} manifest rows, {header.images} in the header"
            raise UserError(str(folder), found, "Run `dvc repro --force prepare`")
        return cls(images, manifest, header)

    def subset(self, split: pd.DataFrame, name: str) -> "Subset":
        """The images that the split table deals to `name` (train, val or test), in the manifest's order.

        Raises:
            UserError: no image is in that split, or the table speaks of other images.
        """
        if list(split["id"]) != list(self.manifest["id"]):
            raise UserError("data/split.csv", "lists other images than data/prepared", "Run `dvc repro split`")
        rows = np.flatnonzero(split["split"].to_numpy() == name)
        if not len(rows):
            raise UserError("data/split.csv", f"no image is in {name!r}", f"Give split.{name} a larger share")
        classes = [label for label in self.header.classes if (split["label"] == label).any()]
        index = {label: number for number, label in enumerate(classes)}
        patients = self.manifest["patient"].to_numpy()[rows].astype(str)
        ids = self.manifest["id"].to_numpy()[rows].astype(str)
        known = patients != ""
        patients = np.where(known, patients, np.char.add("?", ids))
        labels = np.array([index[label] for label in split["label"].to_numpy()[rows]], dtype=np.int64)
        return Subset(self.images, rows, labels, ids, patients, classes)


@dataclass(frozen=True)
class Subset:
    """Some images of a store.

    Attributes:
        store_images: the whole store's array.
        rows: int, n; where the subset's images stand in it.
        labels: int64, n; index into `classes`.
        ids: text, n.
        patients: text, n; an image without a known patient is its own (`?<id>`).
        classes: names in the order of the grade, those that merging left.
    """

    store_images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    patients: np.ndarray
    classes: list[str]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Any) -> "torch.Tensor":
        """Float32 images in [0, 1], n×C×H×W, of the given positions in the subset."""
        import torch

        pixels = self.store_images[self.rows[np.asarray(indices)]]
        pixels = pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, 3, 1)
        return torch.from_numpy(np.ascontiguousarray(pixels)).float().div_(255.0)

    def targets(self, indices: Any) -> "torch.Tensor":
        """Int64 labels, n, of the given positions in the subset."""
        import torch

        return torch.from_numpy(self.labels[np.asarray(indices)])


def read_header(path: Path | str) -> Header:
    """Read `header.json`."""
    return Header(**read_json(path))


def read_manifest(path: Path | str) -> pd.DataFrame:
    """Read `manifest.csv`; empty text means unknown."""
    return read_table(path, dtype=TEXT, keep_default_na=False)


def write_store(folder: Path, manifest: pd.DataFrame, header: Header) -> None:
    """Write the two small files beside an `images.npy` that is there already."""
    write_table(folder / "manifest.csv", manifest[MANIFEST])
    write_json(folder / "header.json", asdict(header))

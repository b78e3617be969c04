"""NIfTI volumes and a table of their labels: axial slices, turned by the header so that all patients lie alike."""

import gzip
import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import read_json
from medrobust.data.images import Raster, Window, to_uint8
from medrobust.data.sources.base import Listing
from medrobust.data.sources.fetch import bring
from medrobust.data.sources.files import DAMAGED, Files, Readable, Shared, open_files
from medrobust.data.sources.labels import locate, read_rows
from medrobust.data.sources.volumes import chosen_slices, one_row_a_slice

if TYPE_CHECKING:
    import nibabel as nib

#: Without `data.window`: these percentiles of a volume's intensities are black and white.
PERCENTILES = (0.5, 99.5)


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Copy or fetch the archive or folder of volumes at `data.path`, and the table."""
    return bring(data, folder)


def listing(data: DataParams, folder: Path) -> Listing:
    """One row a chosen slice of each volume that the table names.

    Raises:
        UserError: nibabel is not installed, the table does not fit the files, or a header cannot be used (with
            `on_bad_image: fail`).
    """
    files = open_files(folder / read_json(folder / "source.json")["file"])
    rows = read_rows(data, folder, files)
    table, skipped = locate(rows, [name for name in files.names if name.endswith((".nii", ".nii.gz"))], data)
    slices: dict[str, list[int]] = {}
    for name in table["id"]:
        try:
            header = _header(files, name)
            slices[name] = chosen_slices(_Turn.of(header).height(header), data.volume)
        except ValueError as error:
            if data.on_bad_image == "fail":
                remedy = "Mend or remove it, or set data.on_bad_image: skip"
                raise UserError(name, f"cannot be used ({error})", remedy) from None
            skipped.append({"id": name, "reason": str(error)})
    volumes = Shared(partial(_load, files, data.window))
    return Listing(
        one_row_a_slice(table, slices), partial(_read, volumes), "unknown", "unknown", "",
        verified="orientation of each volume by its header", skipped=skipped, left_out=rows.left_out,
    )  # fmt: skip


@dataclass(frozen=True)
class _Turn:
    """How a stored volume lies: for each stored axis the axis of RAS+ (to the right, front, top), and its sense.

    Attributes:
        axes: 0, 1 or 2 for each stored axis.
        senses: 1 or -1 for each stored axis.
    """

    axes: tuple[int, ...]
    senses: tuple[int, ...]

    @classmethod
    def of(cls, image: "nib.nifti1.Nifti1Pair") -> "_Turn":
        """Read it from a header.

        Raises:
            ValueError: the header gives no orientation, or the image is no single volume.
        """
        import nibabel as nib

        if not int(image.header["sform_code"]) and not int(image.header["qform_code"]):
            raise ValueError("its header says nothing of its orientation (sform and qform code are 0)")
        shape, kind = image.shape, image.get_data_dtype().kind
        if kind not in "iuf":
            raise ValueError("its voxels are no plain numbers")
        if len(shape) < 3 or any(n != 1 for n in shape[3:]):
            raise ValueError(f"its shape is {shape}, which is no single volume")
        turned = nib.orientations.io_orientation(image.affine)
        if np.isnan(turned).any():
            raise ValueError("its affine drops an axis")
        return cls(tuple(int(axis) for axis in turned[:, 0]), tuple(int(sense) for sense in turned[:, 1]))

    def height(self, image: "nib.nifti1.Nifti1Pair") -> int:
        """How many axial slices the volume has."""
        return int(image.shape[self.axes.index(2)])

    def axial(self, image: "nib.nifti1.Nifti1Pair", number: int) -> np.ndarray:
        """An axial slice counted from the feet, as radiologists look at it: the front up, the right side left."""
        stored = self.axes.index(2)
        place = number if self.senses[stored] == 1 else self.height(image) - 1 - number
        index: list[slice | int] = [slice(None)] * 3
        index[stored] = place
        plane = np.asarray(image.dataobj[(*index, *[0] * (len(image.shape) - 3))])
        left = [axis for axis in range(3) if axis != stored]
        plane = plane[tuple(slice(None, None, self.senses[axis]) for axis in left)]
        if self.axes[left[0]] == 1:
            plane = plane.T
        return plane[::-1, ::-1].T


@dataclass(frozen=True)
class _Volume:
    image: "nib.nifti1.Nifti1Pair"
    turn: _Turn
    window: Window


def _header(files: Files, name: str) -> "nib.nifti1.Nifti1Pair":
    """A volume's header (with its extensions, a MiB at most); raises ValueError where it is damaged."""
    try:
        with files.open(name) as stream:
            opened: Readable = gzip.GzipFile(fileobj=stream) if name.endswith(".gz") else stream
            return _image(opened.read(1 << 20))
    except DAMAGED as error:
        raise ValueError(f"truncated or no volume ({error})") from None


def _image(content: bytes) -> "nib.nifti1.Nifti1Pair":
    try:
        import nibabel as nib
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
        from nibabel.wrapstruct import WrapStructError
    except ImportError:
        remedy = "Install the extra: pip install medrobust[formats]"
        raise UserError("params.yaml: data.source: nifti", "nibabel is not installed", remedy) from None
    # The header begins with its own size: 348 in NIfTI-1, 540 in NIfTI-2, in either byte order.
    second = content[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))
    kind = nib.Nifti2Image if second else nib.Nifti1Image
    try:
        return kind.from_stream(io.BytesIO(content))
    except (ImageFileError, HeaderDataError, WrapStructError, ValueError) as error:
        raise ValueError(f"truncated or no volume ({error})") from None


def _load(files: Files, window: Window | None, name: str) -> _Volume:
    content = files.read(name)
    try:
        image = _image(gzip.decompress(content) if name.endswith(".gz") else content)
        turn = _Turn.of(image)
        if window is None:
            low, high = np.nanpercentile(np.asarray(image.dataobj), PERCENTILES)
            window = (float(low), float(high))
    except (*DAMAGED, OverflowError) as error:
        raise ValueError(f"truncated or no volume ({error})") from None
    if not window[0] < window[1]:
        raise ValueError("all its voxels are alike")
    return _Volume(image, turn, window)


def _read(volumes: Shared[_Volume], name: str) -> Raster:
    key, _, number = name.rpartition("#")
    volume = volumes(key)
    try:
        values = volume.turn.axial(volume.image, int(number))
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(f"its volume is truncated ({error})") from None
    return Raster(to_uint8(values, volume.window), bits=8 * volume.image.get_data_dtype().itemsize)

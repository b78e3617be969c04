"""NIfTI volumes with a table of labels: axial slices, reoriented by the header so that all look the same way."""

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
from medrobust.data.sources.fetch import copy_or_download
from medrobust.data.sources.files import READ_ERRORS, Files, Readable, SharedCache, open_files
from medrobust.data.sources.labels import match_files, read_label_table
from medrobust.data.sources.volumes import one_row_per_slice, selected_slices

if TYPE_CHECKING:
    import nibabel as nib

#: Without `data.window`, these percentiles of a volume's intensities become black and white.
PERCENTILES = (0.5, 99.5)


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Copy or download the archive or folder of volumes at `data.path`, and the table."""
    return copy_or_download(data, folder)


def listing(data: DataParams, folder: Path) -> Listing:
    """List the selected slices of each volume in the table.

    Raises:
        UserError: nibabel is not installed, the table does not match the files, or a header is not usable (with
            `on_bad_image: fail`).
    """
    files = open_files(folder / read_json(folder / "source.json")["file"])
    rows = read_label_table(data, folder, files)
    table, skipped = match_files(rows, [name for name in files.names if name.endswith((".nii", ".nii.gz"))], data)
    slices: dict[str, list[int]] = {}
    for name in table["id"]:
        try:
            header = _header(files, name)
            slices[name] = selected_slices(_Orientation.of(header).height(header), data.volume)
        except ValueError as error:
            if data.on_bad_image == "fail":
                remedy = "Fix or remove it, or set data.on_bad_image: skip"
                raise UserError(name, f"is not usable ({error})", remedy) from None
            skipped.append({"id": name, "reason": str(error)})
    volumes = SharedCache(partial(_load, files, data.window))
    return Listing(
        one_row_per_slice(table, slices), partial(_read, volumes), "unknown", "unknown", "",
        verified="orientation of each volume by its header", skipped=skipped, left_out=rows.left_out,
    )  # fmt: skip


@dataclass(frozen=True)
class _Orientation:
    """Orientation of a stored volume relative to RAS+ (axes to the right, to the front and up).

    Attributes:
        axes: for each stored axis, its axis in RAS+: 0, 1 or 2.
        signs: for each stored axis, 1 if it has the direction of RAS+, else -1.
    """

    axes: tuple[int, ...]
    signs: tuple[int, ...]

    @classmethod
    def of(cls, image: "nib.nifti1.Nifti1Pair") -> "_Orientation":
        """Read the orientation from a header.

        Raises:
            ValueError: the header has no orientation, or the image is not a single volume of numbers.
        """
        import nibabel as nib

        if not int(image.header["sform_code"]) and not int(image.header["qform_code"]):
            raise ValueError("its header has no orientation (sform and qform code are 0)")
        shape, kind = image.shape, image.get_data_dtype().kind
        if kind not in "iuf":
            raise ValueError("its voxels are not numbers")
        if len(shape) < 3 or any(n != 1 for n in shape[3:]):
            raise ValueError(f"its shape {shape} is not that of a single volume")
        orientation = nib.orientations.io_orientation(image.affine)
        if np.isnan(orientation).any():
            raise ValueError("its affine is singular")
        return cls(tuple(int(axis) for axis in orientation[:, 0]), tuple(int(sign) for sign in orientation[:, 1]))

    def height(self, image: "nib.nifti1.Nifti1Pair") -> int:
        """Number of axial slices."""
        return int(image.shape[self.axes.index(2)])

    def axial(self, image: "nib.nifti1.Nifti1Pair", number: int) -> np.ndarray:
        """An axial slice, numbered from the feet, in radiological view: front up, right side on the left."""
        stored = self.axes.index(2)
        position = number if self.signs[stored] == 1 else self.height(image) - 1 - number
        index: list[slice | int] = [slice(None)] * 3
        index[stored] = position
        plane = np.asarray(image.dataobj[(*index, *[0] * (len(image.shape) - 3))])
        in_plane = [axis for axis in range(3) if axis != stored]
        plane = plane[tuple(slice(None, None, self.signs[axis]) for axis in in_plane)]
        if self.axes[in_plane[0]] == 1:
            plane = plane.T
        return plane[::-1, ::-1].T


@dataclass(frozen=True)
class _Volume:
    image: "nib.nifti1.Nifti1Pair"
    orientation: _Orientation
    window: Window


def _header(files: Files, name: str) -> "nib.nifti1.Nifti1Pair":
    """Read a volume's header (with its extensions, up to 1 MiB); raises ValueError if it is damaged."""
    try:
        with files.open(name) as stream:
            opened: Readable = gzip.GzipFile(fileobj=stream) if name.endswith(".gz") else stream
            return _image(opened.read(1 << 20))
    except READ_ERRORS as error:
        raise ValueError(f"truncated or not a volume ({error})") from None


def _image(content: bytes) -> "nib.nifti1.Nifti1Pair":
    try:
        import nibabel as nib
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
        from nibabel.wrapstruct import WrapStructError
    except ImportError:
        remedy = "Install the extra: pip install medrobust[formats]"
        raise UserError("params.yaml: data.source: nifti", "nibabel is not installed", remedy) from None
    # The header starts with its own size: 348 in NIfTI-1, 540 in NIfTI-2, in either byte order.
    is_nifti2 = content[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))
    kind = nib.Nifti2Image if is_nifti2 else nib.Nifti1Image
    try:
        return kind.from_stream(io.BytesIO(content))
    except (ImageFileError, HeaderDataError, WrapStructError, ValueError) as error:
        raise ValueError(f"truncated or not a volume ({error})") from None


def _load(files: Files, window: Window | None, name: str) -> _Volume:
    content = files.read(name)
    try:
        image = _image(gzip.decompress(content) if name.endswith(".gz") else content)
        orientation = _Orientation.of(image)
        if window is None:
            low, high = np.nanpercentile(np.asarray(image.dataobj), PERCENTILES)
            window = (float(low), float(high))
    except (*READ_ERRORS, OverflowError) as error:
        raise ValueError(f"truncated or not a volume ({error})") from None
    if not window[0] < window[1]:
        raise ValueError("all its voxels have the same value")
    return _Volume(image, orientation, window)


def _read(volumes: SharedCache[_Volume], name: str) -> Raster:
    key, _, number = name.rpartition("#")
    volume = volumes(key)
    try:
        values = volume.orientation.axial(volume.image, int(number))
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(f"its volume is truncated ({error})") from None
    return Raster(to_uint8(values, volume.window), bits=8 * volume.image.get_data_dtype().itemsize)

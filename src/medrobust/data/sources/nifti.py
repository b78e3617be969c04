"""NIfTI volumes with a table of labels: axial slices, reoriented by the header so that all look the same way."""

import gzip
import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from medrobust.core.params.data import DataParams
from medrobust.data.images import Raster, Window, to_uint8
from medrobust.data.sources.base import Listing, Release
from medrobust.data.sources.fetch import copy_or_download, open_raw
from medrobust.data.sources.files import READ_ERRORS, Files, SharedCache
from medrobust.data.sources.labels import match_files, read_label_table
from medrobust.data.sources.unused import NO_ROW, unused
from medrobust.data.sources.volumes import one_row_per_slice

#: Without `data.window`, these percentiles of a volume's intensities become black and white.
PERCENTILES = (0.5, 99.5)


download = copy_or_download


def listing(data: DataParams, folder: Path) -> Listing:
    """List the selected slices of each volume in the table.

    Raises:
        UserError: the table does not match the files, or a header is not usable (with `on_bad_image: fail`).
    """
    files = open_raw(folder)
    rows = read_label_table(data, folder, files)
    table, skipped, without_row = match_files(
        rows, [name for name in files.names if name.endswith((".nii", ".nii.gz"))], data
    )

    def count_slices(name: str) -> int:
        header = _header(files, name)
        return int(header.shape[_vertical(_orientation(header))])

    table, unusable = one_row_per_slice(table, count_slices, data)
    read = partial(_read, SharedCache(partial(_load, files, data.window)))
    release = Release(verified="orientation of each volume by its header")
    return Listing(table, read, release, skipped=skipped + unusable, left_out=rows.left_out,
                   unused=unused(NO_ROW, without_row))  # fmt: skip


def _orientation(image: nib.nifti1.Nifti1Pair) -> np.ndarray:
    """Axis in RAS+ (right, front, up) and direction (1 or -1) of each stored axis, 3×2; raises ValueError."""
    if not int(image.header["sform_code"]) and not int(image.header["qform_code"]):
        raise ValueError("its header has no orientation (sform and qform code are 0)")
    if image.get_data_dtype().kind not in "iuf":
        raise ValueError("its voxels are not numbers")
    if len(image.shape) < 3 or any(extent != 1 for extent in image.shape[3:]):
        raise ValueError(f"its shape {image.shape} is not that of a single volume")
    orientation: np.ndarray = nib.orientations.io_orientation(image.affine)
    if np.isnan(orientation).any():
        raise ValueError("its affine is singular")
    return orientation


def _vertical(orientation: np.ndarray) -> int:
    return int(np.flatnonzero(orientation[:, 0] == 2)[0])


def _axial(image: nib.nifti1.Nifti1Pair, orientation: np.ndarray, number: int) -> np.ndarray:
    """An axial slice, numbered from the feet, in radiological view: front up, right side on the left."""
    axis = _vertical(orientation)
    position = number if orientation[axis, 1] == 1 else image.shape[axis] - 1 - number
    index: list[slice | int] = [slice(None)] * 3 + [0] * (len(image.shape) - 3)
    index[axis] = slice(position, position + 1)
    plane: np.ndarray = nib.orientations.apply_orientation(np.asarray(image.dataobj[tuple(index)]), orientation)
    return plane[::-1, ::-1, 0].T


@dataclass(frozen=True)
class _Volume:
    image: nib.nifti1.Nifti1Pair
    orientation: np.ndarray
    window: Window


def _header(files: Files, name: str) -> nib.nifti1.Nifti1Pair:
    """Read a volume's header (with its extensions, up to 1 MiB); raises ValueError if it is damaged."""
    try:
        with files.open(name) as stream:
            opened = gzip.GzipFile(fileobj=stream) if name.endswith(".gz") else stream
            return _image(opened.read(1 << 20))
    except READ_ERRORS as error:
        raise ValueError(f"truncated or not a volume ({error})") from None


def _image(content: bytes) -> nib.nifti1.Nifti1Pair:
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
        orientation = _orientation(image)
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
        values = _axial(volume.image, volume.orientation, int(number))
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(f"its volume is truncated ({error})") from None
    return Raster(to_uint8(values, volume.window), bits=8 * volume.image.get_data_dtype().itemsize)

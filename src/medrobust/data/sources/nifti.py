"""NIfTI and MGH volumes with a table of labels: axial slices, reoriented by each header to look the same way.

A NIfTI pair (.hdr and .img) is a volume too. Analyze files are refused, because their header has no orientation.
"""

import gzip
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError, SpatialImage
from nibabel.wrapstruct import WrapStructError

from medrobust.core.params.data import DataParams, InputParams
from medrobust.core.params.sources import VolumeParams
from medrobust.data.images import Raster, Window, to_uint8
from medrobust.data.sources.base import Listing, Release
from medrobust.data.sources.fetch import copy_or_download, open_raw
from medrobust.data.sources.files import READ_ERRORS, Files, SharedCache, fault
from medrobust.data.sources.labels import match_files, read_label_table
from medrobust.data.sources.unused import NO_ROW, by_ending, check_not_empty, unused
from medrobust.data.sources.volumes import NIFTI_SUFFIXES, chosen_frame, one_row_per_slice, selected_slices

#: Suffix of either file of a NIfTI pair.
PAIR = re.compile(r"\.(img|hdr)(\.gz)?$", re.IGNORECASE)
GZIP = b"\x1f\x8b"
#: A header starts with its size: 348 in NIfTI-1 and Analyze, 540 in NIfTI-2, in either byte order.
NIFTI1, NIFTI2 = ({size.to_bytes(4, "little"), size.to_bytes(4, "big")} for size in (348, 540))
#: Place of the mark of a NIfTI-1 header, and its two values; an Analyze header has neither.
MARK, MARKS = slice(344, 347), (b"n+1", b"ni1")
#: Start of an MGH file, and the place of the number that says whether its orientation is valid.
MGH, GOOD_RAS = b"\0\0\0\1", slice(28, 30)
#: A header with its extensions is within so many first bytes of a file.
HEADER_BYTES = 1 << 20
#: Without `data.window`, these percentiles of a volume's finite intensities become black and white.
PERCENTILES = (0.5, 99.5)


download = copy_or_download


def listing(data: DataParams, folder: Path) -> Listing:
    """List the selected slices of each volume in the table.

    Raises:
        UserError: the table does not match the files, or a header is not usable (with `on_bad_image: fail`).
    """
    files = open_raw(folder)
    rows = read_label_table(data, folder, files)
    paths = rows.table["path"].map(lambda path: PAIR.sub(_image_suffix, path))
    names = [name for name in files.names if name.lower().endswith(NIFTI_SUFFIXES)]
    check_not_empty(names, files, "volume", NIFTI_SUFFIXES)
    table, skipped, without_row = match_files(replace(rows, table=rows.table.assign(path=paths)), names, data)
    reader = _reader(files, data)

    def count_slices(name: str) -> int:
        header = reader.image(name, HEADER_BYTES)
        orientation = _orientation(header)
        _frame_index(header.shape, data.volume)
        return int(header.shape[_vertical(orientation)])

    table, unusable = one_row_per_slice(table, count_slices, data)
    read = partial(_read, SharedCache(reader.volume))
    release = Release(verified="orientation of each volume by its header")
    others = sorted({*files.names} - {*names, *reader.headers.values(), rows.name})
    return Listing(
        table, read, release, skipped=skipped + unusable, left_out=rows.left_out,
        unused=[*unused(NO_ROW, without_row), *by_ending(others)],
    )  # fmt: skip


def slices_of(files: Files, name: str, data: InputParams) -> Iterator[tuple[int, Raster]]:
    """The selected slices of one volume, with their numbers, as `listing` would list and read them.

    Raises:
        ValueError: the volume is damaged or not usable.
    """
    volume = _reader(files, data).volume(name)
    for number in selected_slices(volume.image.shape[_vertical(volume.orientation)], data.volume):
        yield number, _raster(volume, number)


def _reader(files: Files, data: InputParams) -> "_Reader":
    headers = {PAIR.sub("", name): name for name in files.names if name.lower().endswith((".hdr", ".hdr.gz"))}
    return _Reader(files, headers, data)


def _image_suffix(suffix: re.Match[str]) -> str:
    """A pair is listed by its .img; the table may name either file."""
    return suffix[0].replace("hdr", "img").replace("HDR", "IMG")


def _orientation(image: SpatialImage) -> np.ndarray:
    """Axis in RAS+ (right, front, up) and direction (1 or -1) of each stored axis, 3×2; raises ValueError."""
    header = image.header
    if "sform_code" in header and not int(header["sform_code"]) and not int(header["qform_code"]):
        raise ValueError("its header has no orientation (sform and qform code are 0)")
    if image.get_data_dtype().kind not in "iuf":
        raise ValueError("its voxels are not numbers")
    orientation: np.ndarray = nib.orientations.io_orientation(image.affine)
    if np.isnan(orientation).any():
        raise ValueError("its affine is singular")
    return orientation


def _frame_index(shape: tuple[int, ...], volume: VolumeParams) -> tuple[int, ...]:
    """Index of the chosen frame in the axes behind the third; raises ValueError."""
    if len(shape) < 3:
        raise ValueError(f"its shape {shape} is not that of a volume")
    number = chosen_frame(math.prod(shape[3:]), volume)
    return tuple(int(index) for index in np.unravel_index(number, shape[3:], order="F")) if shape[3:] else ()


def _vertical(orientation: np.ndarray) -> int:
    return int(np.flatnonzero(orientation[:, 0] == 2)[0])


@dataclass(frozen=True)
class _Volume:
    image: SpatialImage
    orientation: np.ndarray
    frame: tuple[int, ...]
    window: Window

    def axial(self, number: int) -> np.ndarray:
        """An axial slice, numbered from the feet, in radiological view: front up, right side on the left."""
        axis = _vertical(self.orientation)
        position = number if self.orientation[axis, 1] == 1 else self.image.shape[axis] - 1 - number
        index: list[slice | int] = [slice(None)] * 3
        index[axis] = slice(position, position + 1)
        values = np.asarray(self.image.dataobj[(*index, *self.frame)])
        plane: np.ndarray = nib.orientations.apply_orientation(values, self.orientation)
        return plane[::-1, ::-1, 0].T


@dataclass(frozen=True)
class _Reader:
    files: Files
    headers: dict[str, str]  # path of a pair without its suffix -> its .hdr
    data: InputParams

    def image(self, name: str, size: int = -1) -> SpatialImage:
        """Read a volume, or the first `size` unpacked bytes of its files; raises ValueError if it is damaged."""
        content, header = self._unpacked(name, size), None
        if PAIR.search(name):
            if (pair := PAIR.sub("", name)) not in self.headers:
                raise ValueError("it has no .hdr file beside it")
            header = self._unpacked(self.headers[pair], size)
        return _parse(content, header)

    def volume(self, name: str) -> _Volume:
        """Read a volume with its orientation and window; raises ValueError if it is not usable."""
        image = self.image(name)
        orientation, frame = _orientation(image), _frame_index(image.shape, self.data.volume)
        window = self.data.window or _percentiles(image, frame)
        return _Volume(image, orientation, frame, window)

    def _unpacked(self, name: str, size: int) -> bytes:
        try:
            with self.files.open(name) as stream:
                packed = stream.read(2) == GZIP
                stream.seek(0)
                return (gzip.GzipFile(fileobj=stream) if packed else stream).read(size)
        except READ_ERRORS as error:
            raise ValueError(f"truncated or not a volume ({fault(error)})") from None


def _parse(content: bytes, header: bytes | None) -> SpatialImage:
    """Interpret the bytes of a volume, or of the two files of a pair, by the start of the header."""
    start = content if header is None else header
    if start[:4] in NIFTI1 and len(start) >= 348 and start[MARK] not in MARKS:
        remedy = "convert it to NIfTI with a tool that knows how it was stored"
        raise ValueError(f"it is an Analyze file, which has no orientation; {remedy}")
    if start[:4] == MGH and start[GOOD_RAS] == b"\0\0":
        raise ValueError("its header has no orientation (goodRASFlag is 0)")
    try:
        if header is not None:
            kind = nib.Nifti2Pair if start[:4] in NIFTI2 else nib.Nifti1Pair
            parts = {"header": header, "image": content}
            return kind.from_file_map({key: FileHolder(fileobj=io.BytesIO(part)) for key, part in parts.items()})
        if start[:4] == MGH:
            return nib.MGHImage.from_stream(io.BytesIO(content))
        return (nib.Nifti2Image if start[:4] in NIFTI2 else nib.Nifti1Image).from_stream(io.BytesIO(content))
    except (ImageFileError, HeaderDataError, WrapStructError, ValueError, TypeError, OSError) as error:
        raise ValueError(f"truncated or not a volume ({error})") from None


def _percentiles(image: SpatialImage, frame: tuple[int, ...]) -> Window:
    """Intensities of black and white of a volume's frame; voxels that are infinite or NaN do not count."""
    try:
        values = np.asarray(image.dataobj[(slice(None), slice(None), slice(None), *frame)])
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(f"truncated or not a volume ({error})") from None
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("none of its voxels is a finite number")
    low, high = np.percentile(values if finite.all() else values[finite], PERCENTILES)
    if not low < high:
        found = (
            "all its voxels have" if values[finite].min() == values[finite].max() else "99 % of its voxels have"
        )
        raise ValueError(f"{found} the same value ({low:g}); set data.window")
    return float(low), float(high)


def _read(volumes: SharedCache[_Volume], name: str) -> Raster:
    key, _, number = name.rpartition("#")
    return _raster(volumes(key), int(number))


def _raster(volume: _Volume, number: int) -> Raster:
    try:
        values = volume.axial(number)
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(f"its volume is truncated ({error})") from None
    return Raster(to_uint8(values, volume.window), bits=8 * volume.image.get_data_dtype().itemsize)

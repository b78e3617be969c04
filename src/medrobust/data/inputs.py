"""Files without labels, as a finished model gets them: decoded and resized exactly as `prepare` does.

Files may be pictures, arrays (npz), NIfTI or MGH volumes, and DICOM images or series. The readers are those of the
data sources.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from glob import escape
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from medrobust.core.errors import UserError
from medrobust.core.params.data import InputParams
from medrobust.data.images import IMAGE_SUFFIXES, Raster, to_raster
from medrobust.data.sources.base import EXTRAS
from medrobust.data.sources.files import READ_ERRORS, Files
from medrobust.data.sources.registry import SOURCES
from medrobust.data.sources.tables import read_columns
from medrobust.data.sources.volumes import DICOM_SUFFIXES, NIFTI_SUFFIXES

#: Endings by kind of file, in lower case. A DICOM file is also recognised by its first bytes.
TABLES, ARRAYS = (".csv", ".tsv", ".parquet"), (".npz",)
#: The remedy that readers name for training data; a finished model has its window already.
SET_WINDOW = re.compile(r"[;,]? (or )?set data\.window.*")


@dataclass(frozen=True)
class InputImage:
    """One image, ready for the model.

    Attributes:
        pixels: uint8 S×S, or S×S×3 in colour.
        file: as the user named it; of an image in an npz file `<file>#<array>/<number>`.
        slice: number of the slice in a volume or series; None for a single image.
        patient: as the table or the DICOM header names the patient; "" if unknown.
        volume: the volume or series that the image is a slice of; "" for a single image.
        label: true class, if a table names it; "" if unknown.
    """

    pixels: np.ndarray
    file: str
    slice: int | None = None
    patient: str = ""
    volume: str = ""
    label: str = ""


@dataclass(frozen=True)
class Fault:
    """A file without an answer, and the reason."""

    file: str
    reason: str


@dataclass
class Inputs:
    """What was found at some paths.

    Attributes:
        units: readers of one file or series each; they raise ValueError if it is unusable.
        faults: files that are known to be unusable before they are read.
        ignored: files in folders that are no images.
    """

    units: list[tuple[str, Callable[[], Iterator[InputImage]]]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def read(self) -> Iterator[InputImage | Fault]:
        """Every image in order; a file that cannot be used is a fault, and the next ones are still read."""
        yield from self.faults
        for name, read in self.units:
            try:
                yield from read()
            except OSError as error:
                yield Fault(name, f"cannot be read ({error.strerror or error})")
            except UserError as error:  # a library for this kind of file is not installed
                yield Fault(name, _reason(error))
            except ValueError as error:
                found = SET_WINDOW.sub(", and the model was trained without data.window", str(error))
                yield Fault(name, found)


@dataclass(frozen=True)
class Reader:
    """Finds images at paths, for a model with this input.

    Attributes:
        params: size, channels and window of the training data.
        slices: whether the model was trained on slices, so that it accepts volumes and series.
        colour_as_grey: whether a model of grey images converts pictures in colour, as `prepare` does.
    """

    params: InputParams
    slices: bool
    colour_as_grey: bool = False

    def find(self, paths: Iterable[Path]) -> Inputs:
        """The images at paths: files, folders with all files below, or tables with a column `path`.

        A path is a fault, and the others are still used, if it does not exist, is a folder without images or a
        table without the column `path`, or needs a library that is not installed.
        """
        found = Inputs()
        # Consecutive files are one group, because those of a series belong together.
        for is_file, group in groupby(paths, lambda path: path.is_file() and not is_table(path)):
            members = list(group)
            for part in [members] if is_file else [[path] for path in members]:
                try:
                    self._add(part, found)
                except UserError as error:
                    found.faults.append(Fault(str(part[0]), _reason(error)))
        return found

    def fit(self, content: Any) -> np.ndarray:
        """The pixels of an encoded image, a Raster or a picture of Pillow, as the model gets them.

        Raises:
            ValueError: as `images.to_raster`.
        """
        size, channels = self.params.image_size, self.params.channels
        only_grey = channels == 1 and not self.colour_as_grey
        return to_raster(content, size, channels, self.params.window, only_grey=only_grey).pixels

    def _add(self, paths: list[Path], found: Inputs) -> None:
        """Add files, or one folder or table."""
        if paths[0].is_dir():
            self._add_folder(paths[0], found)
        elif not paths[0].is_file():
            found.faults.append(Fault(str(paths[0]), "no such file"))
        elif is_table(paths[0]):
            self._add_table(paths[0], found)
        else:
            self._add_files(paths, found, {})

    def _add_folder(self, folder: Path, found: Inputs) -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path, folder))
        known = [path for path in files if kind_of(path) is not None]
        found.ignored += [str(path) for path in files if kind_of(path) is None]
        if not known:
            kinds = "pictures, NIfTI volumes, DICOM series or npz files"
            raise UserError(str(folder), "contains no image", f"Use a folder with {kinds}")
        self._add_files(known, found, {})

    def _add_table(self, table: Path, found: Inputs) -> None:
        """The rows of a table, one file or series each; a row's patient and label go to its images."""
        rows = read_columns(table.read_bytes(), table.name, ["path"], ["patient", "label"]).fillna("").astype(str)
        for row in rows.to_dict("records"):
            path, own = table.parent / row["path"], Inputs()
            facts = {name: row[name].strip() for name in ("patient", "label") if row.get(name, "").strip()}
            if path.is_dir():
                self._add_files([file for file in sorted(path.iterdir()) if kind_of(file)], own, facts)
            elif path.is_file():
                self._add_files([path], own, facts)
            else:
                own.faults.append(Fault(str(path), f"no such file (a row of {table.name})"))
            found.units += own.units
            found.faults += own.faults

    def _add_files(self, paths: list[Path], found: Inputs, facts: dict[str, str]) -> None:
        series: dict[Path, list[str]] = {}
        for path in paths:
            kind = kind_of(path)
            if kind == "dicom":
                series.setdefault(path.parent, []).append(path.name)
                continue
            read = {"volume": self._volume, "arrays": self._arrays}.get(kind or "", self._picture)
            found.units.append((str(path), partial(self._with, facts, read, path)))
        for folder, names in series.items():
            try:
                self._add_series(folder, names, found, facts)
            except UserError as error:
                found.faults.append(Fault(str(folder), _reason(error)))

    def _add_series(self, folder: Path, names: list[str], found: Inputs, facts: dict[str, str]) -> None:
        dicom, files = _source("dicom"), _files(folder, names)
        ordered, faults = dicom.series_of(files, names)
        found.faults += [Fault(str(folder / name), reason) for name, reason in faults.items()]
        foreign = {entry["id"] for one in ordered for entry in one.left_out}
        found.ignored += [str(folder / name) for name in sorted(foreign)]
        if not ordered and not faults:
            found.faults.append(Fault(str(folder), "contains no DICOM image, only other DICOM objects"))
        for one in ordered:
            several = len(ordered) > 1 or len(one.files) == 1
            name = str(folder / one.files[0]) if several else str(folder)
            read = partial(self._series, dicom, files, one)
            found.units.append((name, partial(self._with, {"patient": one.patient, **facts}, read, Path(name))))

    def _with(
        self, facts: dict[str, str], read: Callable[[Path], Iterator[InputImage]], path: Path
    ) -> Iterator[InputImage]:
        return (replace(image, **dict[str, Any](facts)) for image in read(path))

    def _picture(self, path: Path) -> Iterator[InputImage]:
        yield InputImage(self.fit(path.read_bytes()), str(path))

    def _arrays(self, path: Path) -> Iterator[InputImage]:
        for name, images in _read_npz(path):
            for number, pixels in enumerate(images):
                yield InputImage(self.fit(Raster(np.asarray(pixels))), f"{path}#{name}/{number:06d}")

    def _volume(self, path: Path) -> Iterator[InputImage]:
        self._check_slices("volume")
        nifti = _source("nifti")
        pair = [other.name for other in path.parent.glob(f"{escape(nifti.PAIR.sub('', path.name))}.*")]
        for number, raster in nifti.slices_of(
            _files(path.parent, sorted({path.name, *pair})), path.name, self.params
        ):
            yield InputImage(self.fit(raster), str(path), number, volume=str(path))

    def _series(self, dicom: Any, files: Files, one: Any, path: Path) -> Iterator[InputImage]:
        if len(one.files) == 1:
            for _, raster in dicom.slices_of(files, one, self.params):
                yield InputImage(self.fit(raster), str(path))
            return
        self._check_slices("series")
        for number, raster in dicom.slices_of(files, one, self.params):
            yield InputImage(self.fit(raster), str(files.path / one.files[number]), number, volume=str(path))

    def _check_slices(self, what: str) -> None:
        if not self.slices:
            raise ValueError(
                f"is a {what} of slices, and the model was trained on single images; "
                "save the slice that is to be used as a picture"
            )


def is_table(path: Path) -> bool:
    """Whether a file is a table of images, by its ending."""
    return path.name.lower().endswith(TABLES)


def kind_of(path: Path) -> str | None:
    """`picture`, `volume`, `arrays` or `dicom` by the ending of a file, or by its first bytes; None otherwise."""
    name = path.name.lower()
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return "picture"
    for kind, suffixes in (("volume", NIFTI_SUFFIXES), ("arrays", ARRAYS), ("dicom", DICOM_SUFFIXES)):
        if name.endswith(suffixes):
            return kind
    if name == "dicomdir":
        return None
    try:
        with path.open("rb") as file:
            return "dicom" if file.read(132)[128:] == b"DICM" else None
    except OSError:
        return None


def _reason(error: UserError) -> str:
    return f"{error.found}. {error.remedy}"


def _hidden(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)


def _files(folder: Path, names: list[str]) -> Files:
    return Files(folder, names, lambda name: (folder / name).open("rb"))


def _source(name: str) -> Any:
    """The module of a data source, whose readers need a library that not everybody installs."""
    try:
        return import_module(SOURCES[name])
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        remedy = f"Run: pip install medrobust[{EXTRAS[error.name]}]"
        raise UserError(f"{name} files", f"{error.name} is not installed", remedy) from None


def _read_npz(path: Path) -> list[tuple[str, np.ndarray]]:
    """The arrays `images` and `*_images` of a file, as MedMNIST names them; raises ValueError."""
    try:
        content = np.load(path, allow_pickle=False)
        names = [name for name in getattr(content, "files", []) if name == "images" or name.endswith("_images")]
        arrays = [(name, content[name]) for name in names]
    except (*READ_ERRORS, ValueError) as error:
        raise ValueError(f"truncated or not an npz ({error})") from None
    if not arrays:
        raise ValueError("has no array called images, nor one whose name ends with _images")
    return [(name, _checked(name, images)) for name, images in arrays]


def _checked(name: str, images: np.ndarray) -> np.ndarray:
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.dtype.kind == "f" and np.isnan(images).any():
        raise ValueError(f"{name} has NaN pixels")
    flat = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if images.dtype != np.uint8 or not flat or 0 in images.shape:
        what = "volumes" if images.ndim > 3 and not flat else "images"
        raise ValueError(
            f"{name} has {what} of {images.dtype} with shape {images.shape[1:]}; use uint8, n×H×W or n×H×W×3"
        )
    return images

"""The contract of a data source: one function fetches the raw data, another lists the images in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol

import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.data.groups import Kind
from medrobust.data.images import Raster
from medrobust.data.sources.registry import SOURCES
from medrobust.data.sources.unused import Unused

#: Library that only some sources import -> the extra of medrobust that installs it.
EXTRAS = {"h5py": "formats", "nibabel": "formats", "pydicom": "formats", "kagglehub": "kaggle"}


@dataclass(frozen=True)
class Release:
    """The publication of a data set: licence, citation, address, and what of it was compared, in words.

    `doubt` says why the images may not be those of the publication that the source or file name suggests. The
    report shows it on its first screen, and `licence` is then unknown.
    """

    licence: str = "unknown"
    citation: str = "unknown"
    url: str = ""
    verified: str = "nothing"
    doubt: str = ""


@dataclass(frozen=True)
class Listing:
    """The images of a raw data set.

    `table` has one row per image: `id`, `label`, and as far as known `patient`, `slice`, `kind`, `parent`,
    `published_split`. `read` returns an image by its id, encoded or as pixels, or raises ValueError with the
    reason. It is called once per image, from several threads, in about the order of the table. `recover` is called
    once, after every file was read, with the table and a column `sha256`. It returns the completed table, and the
    release if the hashes identify one.
    """

    table: pd.DataFrame
    read: Callable[[str], bytes | Raster]
    release: Release = Release()
    skipped: list[dict[str, str]] = field(default_factory=list)  # {id, reason}, with `on_bad_image: skip`
    left_out: dict[str, int] = field(default_factory=dict)  # label that `data.labels` maps to null -> its images
    unused: list[Unused] = field(default_factory=list)  # files of the data that are not read
    groups: Mapping[str, Kind] = field(default_factory=dict)  # of the source, unless `data.groups` names some
    masks: bool = False  # whether every image has a mask
    recover: Callable[[pd.DataFrame], tuple[pd.DataFrame, Release | None]] | None = None


class Source(Protocol):
    """A module under `data/sources/`."""

    def download(self, data: DataParams, folder: Path, seed: int) -> dict[str, str]:
        """Write the raw data into `folder`; return facts about them for `source.json`."""

    def listing(self, data: DataParams, folder: Path) -> Listing:
        """List the images that `download` wrote."""


def get_source(name: str) -> Source:
    """Import the source module of a name.

    Raises:
        UserError: no source has this name, or its library is not installed.
    """
    if name not in SOURCES:
        raise UserError("params.yaml: data.source", f"no source {name!r}", f"Use one of: {', '.join(SOURCES)}")
    try:
        source: Source = import_module(SOURCES[name])
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        remedy = f"Install the extra: pip install medrobust[{EXTRAS[error.name]}]"
        raise UserError(f"params.yaml: data.source: {name}", f"{error.name} is not installed", remedy) from None
    return source

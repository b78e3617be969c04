"""The contract of a data source: one function fetches the raw data, another lists the images in it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol

import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.data.images import Raster
from medrobust.data.sources.registry import SOURCES

#: Library that only some sources import -> the extra of medrobust that installs it.
EXTRAS = {"h5py": "formats", "nibabel": "formats", "pydicom": "formats", "kagglehub": "kaggle"}


@dataclass(frozen=True)
class Release:
    """The publication of a data set: licence, citation, address, and what of it was compared, in words."""

    licence: str = "unknown"
    citation: str = "unknown"
    url: str = ""
    verified: str = "nothing"


@dataclass(frozen=True)
class Listing:
    """The images of a raw data set.

    Attributes:
        table: one row per image: `id`, `label`, and as far as known `patient`, `slice`, `kind`, `parent`,
            `published_split`.
        read: returns the image with an id, encoded or as pixels; raises ValueError with the reason if it cannot.
            It is called once per image, from several threads, in about the order of the table.
        release: the publication, for the report.
        skipped: {id, reason} of images that the source itself skipped (with `on_bad_image: skip`).
        left_out: label -> number of its images, for labels that `data.labels` maps to null.
        masks: whether every image has a mask.
        recover: called once with the table and a column `sha256`, after every file was read; returns the completed
            table, and the release if the hashes identify one.
    """

    table: pd.DataFrame
    read: Callable[[str], bytes | Raster]
    release: Release = Release()
    skipped: list[dict[str, str]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    masks: bool = False
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

"""What a data source is: a way to fetch the raw data, and a way to list the images in it."""

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


@dataclass(frozen=True)
class Release:
    """Which publication the data are: its licence, how to cite it, where it stands, and what proves it."""

    licence: str
    citation: str
    url: str
    verified: str = "nothing"


@dataclass(frozen=True)
class Listing:
    """The images of a raw data set.

    Attributes:
        table: one row an image: `id`, `label` and what is known of `patient`, `slice`, `kind`, `parent`,
            `published_split`.
        read: gives the image with an id, encoded or as pixels; a ValueError says what is wrong with it. It is
            called once an image, from several threads, rows of the table near each other at about the same time.
        licence, citation, url: of the data set, for the report.
        verified: what was compared with the publication (counts, classes, checksums), in words.
        skipped: {id, reason} of what the source itself had to leave out (with `on_bad_image: skip`).
        left_out: images of each label that `data.labels` maps to null.
        masks: each image comes with a mask.
        recover: called once with the table and each file's `sha256`; gives the completed table, and the release
            if the hashes show which it is. So files are read once, although their hashes tell more about them.
    """

    table: pd.DataFrame
    read: Callable[[str], bytes | Raster]
    licence: str
    citation: str
    url: str
    verified: str = "nothing"
    skipped: list[dict[str, str]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    masks: bool = False
    recover: Callable[[pd.DataFrame], tuple[pd.DataFrame, Release | None]] | None = None


class Source(Protocol):
    """A module under `data/sources/`."""

    def download(self, data: DataParams, folder: Path, seed: int) -> dict[str, str]:
        """Bring the raw data into `folder`; return what `source.json` should say of them."""

    def listing(self, data: DataParams, folder: Path) -> Listing:
        """List the images that `download` brought."""


def get_source(name: str) -> Source:
    """The source module of that name.

    Raises:
        UserError: there is no such source.
    """
    if name not in SOURCES:
        raise UserError("params.yaml: data.source", f"no source {name!r}", f"Known: {', '.join(SOURCES)}")
    source: Source = import_module(SOURCES[name])
    return source

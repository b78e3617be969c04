"""What a data source is: a way to fetch the raw data, and a way to list the images in it."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import pandas as pd

from medrobust.errors import UserError
from medrobust.params.data import DataParams

#: name in `data.source` -> module, imported when it is asked for
SOURCES = {
    "phantom": "medrobust.data.sources.phantom",
    "archive": "medrobust.data.sources.archive",
}


@dataclass(frozen=True)
class Listing:
    """The images of a raw data set.

    Attributes:
        table: one row an image: `id`, `label` and what is known of `patient`, `slice`, `kind`, `parent`,
            `published_split`.
        read: gives the encoded bytes of the image with an id.
        licence, citation, url: of the data set, for the report.
    """

    table: pd.DataFrame
    read: Callable[[str], bytes]
    licence: str
    citation: str
    url: str


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

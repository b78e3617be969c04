"""A Kaggle data set with class folders or a table, downloaded by kagglehub and read like `archive`."""

import re
from dataclasses import replace
from pathlib import Path

import kagglehub
from kagglehub.exceptions import BackendError, CredentialError, DataCorruptionError, UnauthenticatedError
from requests import RequestException

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import read_json
from medrobust.data.sources import archive
from medrobust.data.sources.base import Listing, Release
from medrobust.data.sources.fetch import copy_table
from medrobust.data.sources.files import copy_folder

#: owner/name, optionally with a fixed version.
SLUG = re.compile(r"([\w-]+/[\w-]+)(?:/versions/(\d+))?")


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Download the data set with the slug `data.path`; kagglehub resumes interrupted downloads and checks hashes.

    Raises:
        UserError: `data.path` is not a slug, or the download fails.
    """
    match = SLUG.fullmatch(data.path or "")
    if match is None:
        found = "null" if data.path is None else f"{data.path!r} is not a slug"
        raise UserError("params.yaml: data.path", found, "Set it to owner/name, or to owner/name/versions/2")
    try:
        downloaded = Path(kagglehub.dataset_download(data.path))
    except (RequestException, BackendError, CredentialError, DataCorruptionError, UnauthenticatedError) as error:
        remedy = "Check the slug and the network; private data sets need a token (https://www.kaggle.com/docs/api)"
        raise UserError(f"kaggle: {data.path}", f"cannot be downloaded ({error})", remedy) from None
    copy_folder(downloaded, folder / "files")
    read = copy_table(data, folder)
    return {"file": "files", "slug": match[1], "version": match[2] or downloaded.name, **read}


def listing(data: DataParams, folder: Path) -> Listing:
    """List the images like `archive`, with the page of the data set as source."""
    facts, images = read_json(folder / "source.json"), archive.listing(data, folder)
    if images.release.url:
        return images
    citation = f"Kaggle data set {facts['slug']}, version {facts['version']}"
    url = f"https://www.kaggle.com/datasets/{facts['slug']}"
    return replace(images, release=Release("see its page", citation, url, images.release.verified))

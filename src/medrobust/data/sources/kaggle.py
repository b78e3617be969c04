"""A Kaggle data set of class folders or with a table, fetched by kagglehub and then read as `archive` reads it."""

import re
from dataclasses import replace
from pathlib import Path

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import read_json
from medrobust.data.sources import archive
from medrobust.data.sources.base import Listing
from medrobust.data.sources.fetch import bring_table
from medrobust.data.sources.files import copy_folder

#: owner/name, and a version if it must stay the same.
SLUG = re.compile(r"([\w-]+/[\w-]+)(?:/versions/(\d+))?")


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Fetch the data set whose slug is `data.path`; kagglehub takes up what broke off and checks its hash.

    Raises:
        UserError: no slug, kagglehub is not installed, or Kaggle refuses.
    """
    match = SLUG.fullmatch(data.path or "")
    if match is None:
        found = "null" if data.path is None else f"{data.path!r} is no slug"
        raise UserError("params.yaml: data.path", found, "Give owner/name, or owner/name/versions/2")
    try:
        import kagglehub
        from kagglehub.exceptions import BackendError, CredentialError, DataCorruptionError, UnauthenticatedError
    except ImportError:
        remedy = "Install the extra: pip install medrobust[kaggle]"
        raise UserError("params.yaml: data.source: kaggle", "kagglehub is not installed", remedy) from None
    from requests import RequestException

    try:
        fetched = Path(kagglehub.dataset_download(data.path))
    except (RequestException, BackendError, CredentialError, DataCorruptionError, UnauthenticatedError) as error:
        remedy = "Check the slug and the network; private sets need a token (https://www.kaggle.com/docs/api)"
        raise UserError(f"kaggle: {data.path}", f"cannot be fetched ({error})", remedy) from None
    copy_folder(fetched, folder / "files")
    bring_table(data, folder)
    return {"file": "files", "slug": match[1], "version": match[2] or fetched.name}


def listing(data: DataParams, folder: Path) -> Listing:
    """The images as `archive` lists them, under the data set's page."""
    facts, found = read_json(folder / "source.json"), archive.listing(data, folder)
    if found.url:
        return found
    return replace(
        found,
        licence="see its page",
        citation=f"Kaggle data set {facts['slug']}, version {facts['version']}",
        url=f"https://www.kaggle.com/datasets/{facts['slug']}",
    )

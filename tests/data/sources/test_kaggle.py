"""Kaggle data sets as kagglehub downloads them, and its errors."""

from collections.abc import Callable
from typing import Any

import pytest
import requests

from medrobust.core.errors import UserError
from medrobust.core.records import read_json
from tests.data.sources.conftest import Make

Sample = Callable[[str], dict[str, Any]]


def test_slug_and_version_are_recorded(sample: Sample, make: Make, tmp_path: Any) -> None:
    store = make(sample("kaggle"))
    slug = "lukechugh/best-alzheimer-mri-dataset-99-accuracy"
    facts = read_json(tmp_path / "raw" / "source.json")
    assert (facts["slug"], facts["version"]) == (slug, "1")
    assert store.header.url == f"https://www.kaggle.com/datasets/{slug}"
    assert store.header.counts == {"NonDemented": 2, "MildDemented": 2}


@pytest.mark.parametrize("path", [None, "no slug", "https://www.kaggle.com/x/y", "owner/name/7"])
def test_a_path_that_is_not_a_slug_is_refused(path: str | None, sample: Sample, make: Make) -> None:
    with pytest.raises(UserError, match=r"data\.path: (null|.* is not a slug).*owner/name"):
        make({**sample("kaggle"), "path": path})


def test_an_error_of_kaggle_is_reported(sample: Sample, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: str) -> str:
        raise requests.HTTPError("403 Client Error")

    block = sample("kaggle")
    monkeypatch.setattr("kagglehub.dataset_download", refuse)
    with pytest.raises(UserError, match=r"kaggle: lukechugh/.*cannot be downloaded \(403 Client Error\).*token"):
        make(block)

"""A published model for the tests of the app."""

from pathlib import Path

import pytest

from medrobust.inference.loaded import LoadedModel, open_model
from tests.app.published import publish


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a published model with a guard."""
    return publish(tmp_path_factory.mktemp("models") / "resnet" / "clean")


@pytest.fixture(scope="session")
def model(folder: Path) -> LoadedModel:
    """The model of that folder."""
    return open_model(folder)

"""What every test may use: the repository's root and the real images, where a machine has them."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images: `MEDROBUST_SHARED`, else `shared/data` beside the checkout; or a skip."""
    folder = Path(os.environ.get("MEDROBUST_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set MEDROBUST_SHARED")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: of several workers, none is left alone with the end-to-end run at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)

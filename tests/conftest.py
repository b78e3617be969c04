"""What every test may use: the repository's root and the real images, where a machine has them."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: Whether the test that runs may read params.yaml, in which a team has values of its own.
may_read = {"params.yaml": False}


def _refuse_live_params(event: str, args: tuple[Any, ...]) -> None:
    """An audit hook: whoever opens params.yaml of the working tree fails. Tests use `tests/params.py` instead."""
    if event == "open" and str(args[0]).endswith("params.yaml") and not may_read["params.yaml"]:
        assert Path(args[0]).absolute() != ROOT / "params.yaml", "only tests marked `live_params` read params.yaml"


sys.addaudithook(_refuse_live_params)


@pytest.fixture(autouse=True)
def _live_params(request: pytest.FixtureRequest) -> Iterator[None]:
    may_read["params.yaml"] = request.node.get_closest_marker("live_params") is not None
    yield
    may_read["params.yaml"] = False


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

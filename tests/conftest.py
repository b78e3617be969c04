"""What tests of several folders use: the root, real images where a machine has them, model folders, a browser."""

import os
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.report.browser import Tab

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


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published model; tests that change it copy it."""
    from tests.inference.model_folder import write_model

    return write_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="session")
def ensemble_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published ensemble; tests that change it copy it."""
    from tests.inference.model_folder import write_ensemble

    return write_ensemble(tmp_path_factory.mktemp("ensemble"))


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """One browser for all tests of a module."""
    from playwright.sync_api import sync_playwright

    from tests.report.browser import launch

    with sync_playwright() as playwright:
        chromium = launch(playwright)
        yield chromium
        chromium.close()


@pytest.fixture
def known_messages() -> Collection[str]:
    """Messages that the page of a module may write on its console; a module with some overrides this."""
    return ()


@pytest.fixture
def open_page(
    page: Path | str, browser: "Browser", known_messages: Collection[str]
) -> "Iterator[Callable[..., Tab]]":
    """Opens the fixture `page` of the module, a file or an address: `open_page(width, dark=...)`.

    At the end nothing may be on its console, and nothing may have been requested from elsewhere.
    """
    from tests.report.browser import Tab

    tabs: list[Tab] = []
    own = page.as_uri() if isinstance(page, Path) else page

    def opened(width: int = 1280, *, dark: bool = False) -> Tab:
        tabs.append(Tab(browser, page, width, dark=dark))
        return tabs[-1]

    yield opened
    for tab in tabs:
        assert [text for text in tab.complaints if text not in known_messages] == []
        assert [url for url in tab.requests if not url.startswith((own, "data:", "blob:"))] == []
        tab.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: of several workers, none is left alone with the end-to-end run at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)

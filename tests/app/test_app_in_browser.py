"""The page in a real browser: drop a file, choose, move ε; nothing leaves the machine, and nothing stays on it."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin
from playwright.sync_api import Browser

from tests.app.published import pixels, publish
from tests.app.running import RunningApp, running_app
from tests.data.sources.dicom_series import two_series
from tests.report.browser import CHROMIUM, Tab

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]

#: In the file that is uploaded.
TELLTALE = "XQPATIENT"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models, of which the second has no guard, and files to upload."""
    folder = tmp_path_factory.mktemp("home")
    publish(folder / "models" / "resnet" / "clean")
    publish(folder / "models" / "resnet" / "bare", guarded=False)
    facts = PngImagePlugin.PngInfo()
    facts.add_text("patient", TELLTALE)
    (folder / "files").mkdir()
    Image.fromarray(pixels()).save(folder / "files" / f"{TELLTALE}.png", pnginfo=facts)
    (folder / "files" / "notes.txt").write_text("no image")
    two_series(folder / "files")
    return folder


@pytest.fixture(scope="module")
def app(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The running app with both models."""
    models = [str(home / "models" / "resnet" / name) for name in ("clean", "bare")]
    with running_app(tmp_path_factory.mktemp("run"), *models) as running:
        yield running


@pytest.fixture
def page(app: RunningApp) -> str:
    """The address of the app."""
    return app.address


@pytest.fixture
def known_messages() -> set[str]:
    """Gradio's own warning."""
    return {"Method not implemented."}


@pytest.fixture
def open_page(open_page: Callable[..., Tab]) -> Callable[..., Tab]:
    """Opens the page and waits until a file can be dropped: `open_page(width)`."""

    def opened(width: int = 1280) -> Tab:
        tab = open_page(width)
        tab.page.wait_for_selector("#file input[type=file]", state="attached")
        return tab

    return opened


def upload(tab: Tab, *files: Path) -> None:
    tab.page.set_input_files("#file input[type=file]", list(files))


def move(tab: Tab, slider: str, key: str, times: int) -> None:
    tab.page.locator(f"#{slider} input[type=range]").focus()
    for _ in range(times):
        tab.page.keyboard.press(key)


def choose(tab: Tab, menu: str, option: str) -> None:
    tab.page.locator(f"#{menu} input").click()
    tab.page.get_by_role("option", name=option, exact=True).click()


def text(tab: Tab, selector: str) -> str:
    return str(tab.evaluate(f"document.querySelector('{selector}').textContent")).strip()


@pytest.mark.parametrize("width", [390, 1280])
def test_a_dropped_file_is_answered_and_an_attack_changes_the_answer(
    home: Path, open_page: Callable[..., Tab], width: int
) -> None:
    tab = open_page(width)
    assert "Drop an image first." in text(tab, "#shown")
    upload(tab, home / "files" / f"{TELLTALE}.png")
    tab.page.wait_for_selector("#shown .headline")
    assert text(tab, "#shown h2") == f"{TELLTALE}.png"
    assert text(tab, "#shown .headline") == "healthy"
    assert text(tab, "#shown .class") == "healthy 58%"
    assert "Accepted by the guard" in " ".join(text(tab, "#shown .verdict").split())
    shown = "[...document.querySelectorAll('#shown img')].map(image => image.complete && image.naturalWidth)"
    assert tab.evaluate(shown) == [32, 32]
    move(tab, "eps", "ArrowRight", 10)
    tab.page.wait_for_selector("#shown :text('ε = 0.01 ')")
    tab.page.wait_for_selector("#shown :text('from healthy to <b>ill</b>, and the guard rejects it')")
    assert tab.evaluate(shown) == [32] * 5
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    move(tab, "eps", "Home", 1)
    tab.page.wait_for_function("document.querySelector('#shown .headline').textContent === 'healthy'")


def test_another_model_and_another_attack_answer(home: Path, open_page: Callable[..., Tab]) -> None:
    tab = open_page()
    upload(tab, home / "files" / f"{TELLTALE}.png")
    tab.page.wait_for_selector("#shown .headline")
    choose(tab, "model", str(home / "models" / "resnet" / "bare"))
    tab.page.wait_for_selector("#shown :text('this model has no guard')")
    choose(tab, "attack", "pgd_l2 (L2)")
    tab.page.wait_for_selector("#attack :text('PGD in the L2 ball')")
    assert tab.page.locator("#eps input[type=range]").get_attribute("max") == "3"
    move(tab, "eps", "ArrowRight", 8)
    tab.page.wait_for_selector("#shown :text('Attacked: pgd_l2 (L2), ε = 0.4 ')")
    tab.page.locator("#attack input").focus()  # a menu that loses the focus is no choice of an attack
    move(tab, "eps", "ArrowRight", 1)
    tab.page.wait_for_selector("#shown :text('Attacked: pgd_l2 (L2), ε = 0.45')")
    assert tab.page.locator("#eps input[type=range]").input_value() == "0.45"
    choose(tab, "attack", "pgd (Linf)")  # ε is 0 again, and so is the answer
    tab.page.wait_for_selector("#shown :text('Attacked: ')", state="detached")
    assert tab.page.locator("#eps input[type=range]").input_value() == "0"


def test_a_series_has_a_slider_of_its_slices(home: Path, open_page: Callable[..., Tab]) -> None:
    tab = open_page()
    upload(tab, *sorted((home / "files" / "series" / "one").iterdir()))
    tab.page.wait_for_selector("#shown h2:text('slice 1')")
    assert "from 4 images" in text(tab, "#shown .note")
    move(tab, "number", "End", 1)
    tab.page.wait_for_selector("#shown h2:text('slice 3')")


def test_a_wrong_file_is_a_message_and_the_next_one_is_answered(home: Path, open_page: Callable[..., Tab]) -> None:
    tab = open_page()
    upload(tab, home / "files" / "notes.txt")
    tab.page.wait_for_selector("#shown [role=alert]:has-text('notes.txt: ')")
    upload(tab, home / "files" / f"{TELLTALE}.png")
    tab.page.wait_for_selector("#shown .headline")
    assert tab.page.locator("#shown [role=alert]").count() == 0


def test_no_file_with_an_upload_is_left_not_even_while_it_runs(
    home: Path, app: RunningApp, browser: Browser
) -> None:
    """The last test here: it ends the app."""
    tab = Tab(browser, app.address, 1280)
    upload(tab, home / "files" / f"{TELLTALE}.png")
    tab.page.wait_for_selector("#shown .headline")
    tab.close()
    files = [path for path in app.home.rglob("*") if path.is_file()]
    assert [path for path in files if TELLTALE in path.name or TELLTALE.encode() in path.read_bytes()] == []
    assert {path.stat().st_size for path in app.temporary.rglob("*") if path.is_file()} <= {0}
    assert (app.home / "errors.txt").read_text() == ""
    assert [call for call in app.calls() if "127.0.0.1" not in call and "localhost" not in call] == []
    assert app.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert list(app.temporary.iterdir()) == []

"""The page in a real browser: quiet console, no request, and controls that work."""

from collections.abc import Callable
from pathlib import Path

import pytest

from medrobust.report.page.write import write_report
from tests.report.browser import CHROMIUM, Tab
from tests.report.runs import SETTINGS, folders, outputs, read, write_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

CELLS = (
    "[...document.querySelectorAll('#attacks .at tbody tr')].map(row => [...row.cells].map(c => c.textContent))"
)
#: Pixels across of A4 within the page's margins.
PAPER = 703
#: Of every text that is seen: its beginning, its contrast to what lies behind it, and whether it is large type.
CONTRASTS = """(() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, ground) => ground.map((value, i) => top[i] * top[3] + value * (1 - top[3]));
  const ground = (node) =>
    node ? over(parse(getComputedStyle(node).backgroundColor), ground(node.parentElement)) : [255, 255, 255];
  const light = (rgb) => rgb.map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, i) => sum + [0.2126, 0.7152, 0.0722][i] * value, 0.05);
  const worded = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  return [...document.body.querySelectorAll("*")].filter((node) => worded(node) && node.checkVisibility())
    .map((node) => {
      const style = getComputedStyle(node), size = Number.parseFloat(style.fontSize), behind = ground(node);
      const ink = over(parse(node instanceof SVGElement ? style.fill : style.color), behind);
      const [high, low] = [light(ink), light(behind)].sort((a, b) => b - a);
      const large = size >= 24 || (size > 18.6 && style.fontWeight > 600);
      return [node.textContent.trim().slice(0, 40), high / low, large];
    });
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    write_report(read(folder, checked=True), SETTINGS, outputs(folder), folders(folder), pictures=True)
    return folder / "out" / "page" / "index.html"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen(open_page: Callable[..., Tab], width: int, dark: bool) -> None:
    tab = open_page(width, dark=dark)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.querySelectorAll('figure.chart svg').length") >= 5
    names = tab.evaluate("[...document.querySelectorAll('section')].map(section => section.id)")
    assert names == [
        "verdicts", "glance", "data", "tuning", "training", "clean", "patients", "attacks",
        "comparisons", "decisions", "backbones", "failures", "checks", "confusion", "ensemble", "cost", "evidence",
        "reproduce",
    ]  # fmt: skip
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") != dark


def test_the_slider_shows_the_models_at_its_radius(open_page: Callable[..., Tab]) -> None:
    tab = open_page(1280)
    assert tab.evaluate(CELLS)[0][2] == "0.250 [0.200, 0.300]"
    for position, radius, accuracy in (
        (0, "0 (clean)", "0.700 [0.500, 0.900]"),
        (1, "0.005 = 1.275/255", "0.500 [0.400, 0.600]"),
    ):
        tab.evaluate(
            "{const slider = document.querySelector('#attacks input[type=range]');"
            f"slider.value = {position}; slider.dispatchEvent(new Event('input'));}}"
        )
        assert tab.evaluate("document.querySelector('#attacks output').textContent") == radius
        assert {row[2] for row in tab.evaluate(CELLS)} == {accuracy}


@pytest.mark.parametrize("width", [390, 1280])
def test_the_first_table_is_whole_and_sections_are_in_reach(open_page: Callable[..., Tab], width: int) -> None:
    tab = open_page(width)
    cells = "[...document.querySelector('#glance tbody').rows[0].cells]"
    texts = tab.evaluate(f"{cells}.filter(cell => cell.checkVisibility()).map(cell => cell.textContent)")
    assert texts == ["one", "clean", "0.750 [0.600, 0.900]", "0.850 [0.700, 0.950]", "0.200"]
    scroll = "document.querySelector('#glance .scroll')"
    assert tab.evaluate(f"{scroll}.scrollWidth <= {scroll}.clientWidth")
    boxes = tab.evaluate(f"{cells}.map(cell => (({{top, left}}) => [top, left])(cell.getBoundingClientRect()))")
    stacked = boxes[1][0] > boxes[0][0] and boxes[1][1] == boxes[0][1]
    assert stacked == (width == 390), "training below the model's name"
    # The bar that stays on top hides no heading, and on a wide screen all its links are in sight.
    tab.evaluate("document.querySelector('#clean').scrollIntoView({behavior: 'instant'})")
    head, bar = "document.querySelector('#clean h2')", "document.querySelector('nav')"
    assert tab.evaluate(f"{head}.getBoundingClientRect().top >= {bar}.getBoundingClientRect().bottom")
    assert tab.evaluate(f"{bar}.scrollWidth <= {bar}.clientWidth") == (width == 1280)


def test_a_pointer_over_a_chart_shows_its_values(open_page: Callable[..., Tab]) -> None:
    tab = open_page(1280)
    tab.evaluate("document.querySelector('#attacks svg').scrollIntoView({block: 'center', behavior: 'instant'})")
    box = tab.evaluate(
        "(({x, y, width, height}) => [x + width - 14, y + height / 2])"
        "(document.querySelector('#attacks .drawing > svg').getBoundingClientRect())"
    )
    assert tab.evaluate("document.querySelector('#attacks .tip').hidden") is True
    tab.page.mouse.move(box[0], box[1])
    text = tab.evaluate("document.querySelector('#attacks .tip').textContent")
    assert text.startswith("ε = 0.01")
    assert "one, adversarial0.250 [0.200, 0.300]" in text
    assert tab.evaluate("document.querySelector('#attacks .tip').hidden") is False


def test_a_column_sorts_by_its_head(open_page: Callable[..., Tab]) -> None:
    tab = open_page(1280)
    column = "[...document.querySelector('#glance tbody').rows].map(row => row.cells[0].textContent)"
    before = tab.evaluate(column)
    tab.evaluate("document.querySelector('#glance th button').click()")
    assert tab.evaluate(column) == sorted(before, reverse=True)
    tab.evaluate("document.querySelector('#glance th button').click()")
    assert tab.evaluate(column) == sorted(before)


def test_the_legend_hides_a_series(open_page: Callable[..., Tab]) -> None:
    tab = open_page(1280)
    group = "document.querySelector('#attacks .drawing > svg > g').style.display"
    assert tab.evaluate(group) == ""
    tab.evaluate("document.querySelector('#attacks .legend button').click()")
    assert tab.evaluate(group) == "none"


@pytest.mark.parametrize("dark", [False, True])
def test_every_word_stands_out_from_its_ground(open_page: Callable[..., Tab], dark: bool) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5, of large type 3."""
    tab = open_page(1280, dark=dark)
    tab.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    found = tab.evaluate(CONTRASTS)
    assert len(found) > 300
    assert [words for words, contrast, large in found if contrast < (3 if large else 4.5)] == []


def test_what_is_folded_is_printed_and_folded_again(open_page: Callable[..., Tab]) -> None:
    tab = open_page(1280)
    folded = "document.querySelectorAll('details:not([open])').length"
    before = tab.evaluate(folded)
    assert before > 0
    tab.evaluate(f"addEventListener('beforeprint', () => {{ window.folded = {folded}; }})")
    tab.page.pdf()
    assert tab.evaluate("window.folded") == 0
    assert tab.evaluate(folded) == before


def test_paper_has_charts_of_its_own_and_nothing_to_press(open_page: Callable[..., Tab]) -> None:
    tab = open_page(1280, dark=True)
    tab.evaluate("document.querySelector('#attacks .legend button').click()")
    tab.paper(PAPER)
    assert tab.evaluate("document.documentElement.scrollWidth") <= PAPER
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    seen = "[...document.querySelectorAll('nav, input, .drawing')].filter(part => part.checkVisibility())"
    assert set(tab.evaluate(f"{seen}.map(part => part.className)")) == {"drawing paper"}
    charts = tab.evaluate("document.querySelectorAll('figure.chart').length")
    assert tab.evaluate(f"{seen}.length") == charts
    drawn = "[...document.querySelectorAll('.paper > svg')]"
    assert min(tab.evaluate(f"{drawn}.map(root => root.clientWidth / root.viewBox.baseVal.width)")) > 0.9
    shown, known = (
        tab.evaluate(f"document.querySelectorAll('#attacks {kind} > svg polyline').length")
        for kind in (".paper", ".drawing:not(.paper)")
    )
    assert (shown, known) == (4, 5)

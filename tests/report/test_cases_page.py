"""The page of single images: when it is written, and how it works in a real browser."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import pandas as pd
import pytest
from playwright.sync_api import Browser

from medrobust.core.lineage import MADE_ON, suite_hash
from medrobust.core.records import write_json
from medrobust.report.cases.render import case_numbers, read_cases, render_cases
from medrobust.report.page.write import write_report
from tests.cases.small_run import cases
from tests.cases.synthetic import synthetic_cases
from tests.params import preset
from tests.report.browser import CHROMIUM, Tab
from tests.report.runs import IMAGES, SETTINGS, SUITE, folders, outputs, predictions, read, weights

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
#: Colours of the pixels of a canvas of the first side, by its place among the pictures.
CANVAS = """(place) => { const canvas = document.querySelectorAll('.sides section:first-child canvas')[place];
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
  copy.drawImage(canvas, 0, 0);
  return [...copy.getImageData(0, 0, canvas.width, canvas.height).data]; }"""
#: Milliseconds that the page needs for slider events, one for each position in turn.
TIMES = """(() => { const slider = document.getElementById('radius'), times = [];
  for (let i = 0; i < 60; i += 1) {
    slider.value = i % (Number(slider.max) + 1);
    const start = performance.now();
    slider.dispatchEvent(new Event('input'));
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b); })()"""


def write_cases(folder: Path, **made_on: object) -> Path:
    """What the stage `cases` writes of this run."""
    path = folder / "cases.json"
    models = {name: weights(name) for name in ("one-adv", "ensemble")}
    known = {**IMAGES, "models": models, "suites": {"pgd": suite_hash(SUITE)}, **made_on}
    write_json(path, {**cases(), MADE_ON: known})
    return path


def written(folder: Path, path: Path, *, pictures: bool = True) -> Path:
    """The folder of the report with these cases."""
    run, where = read(folder), replace(folders(folder), cases=path)
    write_report(run, SETTINGS, outputs(folder), where, pictures=pictures)
    return outputs(folder).page


def test_the_report_has_the_page_and_links_to_it(folder: Path) -> None:
    page = written(folder, write_cases(folder))
    assert 'href="cases.html">Single images: 7 test images' in (page / "index.html").read_text()
    text = (page / "cases.html").read_text()
    assert "one, adversarial training" in text
    assert 'href="index.html"' in text
    assert "made_on" not in text


def test_every_link_to_an_image_leads_to_an_anchor(folder: Path) -> None:
    manifest = folder / "data" / "prepared" / "manifest.csv"
    table, known = pd.read_csv(manifest, dtype=str, keep_default_na=False), predictions(0)
    ids = known.loc[known["split"] == "test", "id"]
    table.assign(id=ids.to_numpy()[: len(table)]).to_csv(manifest, index=False)
    page = written(folder, write_cases(folder))
    links = re.findall(r'href="cases\.html#([^"]+)"', (page / "index.html").read_text())
    anchors = re.findall(r'<li id="([^"]+)">', (page / "cases.html").read_text())
    assert links
    assert set(links) <= set(anchors)
    assert len(anchors) == len(set(anchors)) == 7
    run = read(folder)
    assert case_numbers(run, cases(), folder / "none.csv") == {}
    assert str(folder / "none.csv") in run.missing


@pytest.mark.parametrize("reason", ["empty", "no pictures"])
def test_no_page_and_no_link_where_there_are_no_cases_or_pictures_are_off(folder: Path, reason: str) -> None:
    path = write_cases(folder)
    if reason == "empty":
        write_json(path, {})
    page = written(folder, path, pictures=reason == "empty")
    assert not (page / "cases.html").exists()
    assert "cases.html" not in (page / "index.html").read_text()


def test_cases_of_another_run_are_listed_and_not_shown(folder: Path) -> None:
    path = write_cases(folder, models={"one-adv": "of another training"})
    run = read(folder)
    assert read_cases(run, path) == {}
    assert "weights other than" in run.foreign[str(path)]
    missing = read(folder)
    assert read_cases(missing, folder / "none.json") == {}
    assert str(folder / "none.json") in missing.missing


def test_names_from_the_data_cannot_end_the_script() -> None:
    hostile = {**cases(), "classes": ["</script><script>alert(1)</script>", "b", "c"]}
    text = render_cases(hostile, "</title><script>")
    assert "alert(1)</script>" not in text
    assert "</title><script>" not in text


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "cases.html"
    path.write_text(render_cases(cases(), "a title"), encoding="utf-8")
    return path


def cards(tab: Tab) -> list[int]:
    """The images that are listed, by their position in the data."""
    return [
        int(name)
        for name in tab.evaluate("[...document.querySelectorAll('#grid button')].map(b => b.dataset.index)")
    ]


def expected(**wanted: object) -> list[int]:
    """Positions of images whose first model under the second suite has these values."""
    found = []
    for index, case in enumerate(cases()["cases"]):
        answer = case["models"]["one-adv"]
        probabilities = answer["probabilities"]
        facts = {
            **answer["suites"]["l2"], "patient": case["patient"], "label": case["label"],
            "right": probabilities.index(max(probabilities)) == case["label"],
        }  # fmt: skip
        if all(facts[key] == value for key, value in wanted.items()):
            found.append(index)
    return found


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen_with_an_image_open_or_not(
    open_page: Callable[..., Tab], width: int, dark: bool
) -> None:
    tab = open_page(width, dark=dark)
    assert len(cards(tab)) == 7
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.page.click("#grid button")
    tab.page.wait_for_selector("dialog[open]")
    assert tab.evaluate("(d => d.scrollWidth <= d.clientWidth)(document.querySelector('dialog'))")
    tops = tab.evaluate("[...document.querySelectorAll('.sides section')].map(s => s.getBoundingClientRect().top)")
    assert (tops[0] == tops[1]) == (width == 1280), "side by side where there is room"
    ground = tab.evaluate("getComputedStyle(document.querySelector('dialog')).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") != dark


@needs_browser
def test_filters_and_orders_follow_the_first_model(open_page: Callable[..., Tab]) -> None:
    tab = open_page(1280)
    for control, value, wanted in (
        ("patient", "5", {"patient": 5}),
        ("class", "1", {"label": 1}),
        ("answer", "right", {"right": True}),
        ("answer", "wrong", {"right": False}),
        ("fooled", "0", {"fooled_at": 0.0}),
        ("fooled", "ε 0.4", {"fooled_at": 0.4}),
        ("fooled", "never", {"fooled_at": None}),
        ("attack", "pgd_l2", {"fooled_by": "pgd_l2"}),
    ):
        tab.page.select_option(f"#{control}", value)
        assert cards(tab) == expected(**wanted), (control, value)
        tab.page.click("button[type=reset]")
        tab.page.wait_for_function("document.querySelectorAll('#grid button').length === 7")
    margins = [case["models"]["one-adv"]["margin"] for case in cases()["cases"]]
    tab.page.select_option("#order", "sure")
    assert cards(tab) == sorted(range(7), key=lambda index: margins[index])
    tab.page.select_option("#order", "unsure")
    assert cards(tab) == sorted(range(7), key=lambda index: -margins[index])


@needs_browser
def test_the_detector_filter_needs_a_detector(open_page: Callable[..., Tab]) -> None:
    tab = open_page(1280)
    threshold = cases()["models"][0]["detector"]["threshold"]
    rejects = [case["models"]["one-adv"]["score"] > threshold for case in cases()["cases"]]
    tab.page.select_option("#detector", "accepts")
    assert cards(tab) == [index for index, out in enumerate(rejects) if not out]
    tab.page.select_option("#first", label="ensemble")
    assert tab.evaluate("document.querySelector('#detector').disabled")
    assert len(cards(tab)) == 7, "the filter is gone with the detector"


@needs_browser
def test_the_slider_shows_what_was_computed(open_page: Callable[..., Tab]) -> None:
    tab, index = open_page(1280), expected(fooled_at=0.4)[0]
    case = cases()["cases"][index]
    answer = case["models"]["one-adv"]
    versions = answer["suites"]["l2"]["versions"]
    tab.page.click(f"#grid button[data-index='{index}']")
    tab.page.wait_for_selector("dialog[open]")
    output, say = "document.querySelector('output').textContent", "document.querySelector('.says').textContent"
    assert tab.evaluate(output) == "0.4 (L2)"
    assert "wrong" in tab.evaluate(say)
    assert "fools the model at ε 0.4" in tab.evaluate("document.querySelector('.state').textContent")
    clean, attacked = tab.page.evaluate(CANVAS, 0), tab.page.evaluate(CANVAS, 1)
    moved = max(abs(a - b) for a, b in zip(clean, attacked, strict=True)) / 255
    assert moved == pytest.approx(versions[-1]["largest"], abs=1 / 255)
    cells = "[...document.querySelectorAll('.sides section:first-child tbody td')].map(c => c.textContent)"
    shares = [float(text.removesuffix(" %")) / 100 for text in tab.evaluate(cells)]
    assert shares[1::2] == pytest.approx(versions[-1]["probabilities"], abs=0.006)
    tab.page.focus("#radius")
    tab.page.keyboard.press("Home")
    assert tab.evaluate(output) == "0 (clean)"
    assert "right" in tab.evaluate(say)
    assert tab.page.evaluate(CANVAS, 1) == clean
    assert set(tab.evaluate(cells)[1::2]) == {"–"}


@needs_browser
def test_an_image_opens_turns_and_closes_by_keys_alone(open_page: Callable[..., Tab]) -> None:
    tab = open_page(1280)
    tab.page.focus("#grid button")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("dialog[open]")
    name = "document.querySelector('#name').textContent"
    first = tab.evaluate(name)
    tab.page.keyboard.press("n")
    tab.page.wait_for_function(f"{name} !== {json.dumps(first)}")
    second = tab.evaluate(name)
    tab.page.keyboard.press("p")
    tab.page.wait_for_function(f"{name} !== {json.dumps(second)}")
    assert tab.evaluate(name) == first
    tab.page.keyboard.press("Escape")
    assert not tab.evaluate("document.querySelector('dialog').open")
    assert tab.evaluate("document.activeElement.dataset.index") == "0", "the focus is where it was"


@needs_browser
def test_the_address_of_an_image_opens_it(open_page: Callable[..., Tab], page: Path) -> None:
    tab, second = open_page(1280), cases()["cases"][1]["image"]
    tab.page.goto(f"{page.as_uri()}#image-{second}")
    tab.page.wait_for_selector("dialog[open]")
    assert tab.evaluate("document.querySelector('#name').textContent").startswith(f"Image {second},")


@needs_browser
def test_what_is_not_there_is_explained(open_page: Callable[..., Tab]) -> None:
    """Grad-CAM of an ensemble, a radius that was not tried, and an image that the suite does not attack."""
    tab, state = open_page(1280), "document.querySelector('.state').textContent"
    robust, natural = expected(fooled_at=None)[1], expected(fooled_at=0.0)[0]
    tab.page.click(f"#grid button[data-index='{robust}']")
    tab.page.wait_for_selector("dialog[open]")
    assert tab.evaluate("document.querySelectorAll('.empty').length") == 2
    assert "fails at ε 0.4" in tab.evaluate(state)
    tab.page.focus("#radius")
    tab.page.keyboard.press("ArrowLeft")
    assert "Not tried at ε 0.2" in tab.evaluate(state)
    assert tab.page.evaluate(CANVAS, 0) == tab.page.evaluate(CANVAS, 1)
    tab.page.keyboard.press("Escape")
    tab.page.click(f"#grid button[data-index='{natural}']")
    tab.page.wait_for_function("document.querySelector('dialog').open")
    assert "does not attack it" in tab.evaluate(state)


@needs_browser
def test_a_slider_event_is_handled_within_a_frame(open_page: Callable[..., Tab]) -> None:
    tab = open_page(1280)
    tab.page.click(f"#grid button[data-index='{expected(fooled_at=0.4)[0]}']")
    tab.page.wait_for_selector("dialog[open]")
    times = tab.evaluate(TIMES)
    assert times[len(times) // 2] < 16, times  # the median: other processes of the machine may interrupt one


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("side", [preset("default")["data"]["image_size"], 224])
def test_a_slider_event_of_a_full_page_is_handled_within_a_frame(
    side: int, tmp_path: Path, browser: Browser
) -> None:
    """As many images and models as in the default run, every image at every position.

    The smaller time of two counts: the browser may collect its garbage during an event.
    """
    path, count = tmp_path / "cases.html", preset("default")["report"]["cases"]
    path.write_text(render_cases(synthetic_cases(count, side), "a title"), encoding="utf-8")
    tab = Tab(browser, path, 1280)
    times = []
    for index in range(count):
        tab.evaluate(f"show({index})")
        assert tab.evaluate("Number(slider.max)") == 3
        event = "slider.value = {}; slider.dispatchEvent(new Event('input'))"
        found = tab.processor_times([event.format(value % 4) for value in range(8)])
        times += [min(pair) for pair in zip(found[:4], found[4:], strict=True)]
        tab.evaluate("dialog.close()")
    assert tab.complaints == []
    tab.close()
    assert len(times) == 4 * count
    assert min(times) > 0
    assert max(times) < 16, f"median {median(times):.2f} ms, largest {max(times):.2f} ms"

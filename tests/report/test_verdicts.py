"""The cards at the top of the report."""

from pathlib import Path

from medrobust.core.records import read_json, write_json
from medrobust.report.page.render import page_content, render_html, render_markdown
from medrobust.report.page.verdicts import verdicts
from tests.report.runs import SETTINGS, read


def test_data_that_are_not_the_published_ones_have_a_card_on_the_first_screen(folder: Path) -> None:
    path = folder / "data" / "prepared" / "header.json"
    write_json(path, {**read_json(path), "doubt": "its md5 is not the published one"})
    card = next(card for card in verdicts(read(folder)) if card["of"] == "Data")
    assert (card["verdict"], card["reasons"]) == ("not as published", ["its md5 is not the published one"])
    assert card["tone"] == "doubt"
    page = render_html(page_content(read(folder), SETTINGS), {})
    assert page.index("its md5 is not the published one") < page.index("<nav")
    text = render_markdown(page_content(read(folder), SETTINGS))
    assert text.index("**Data: not as published**") < text.index("## At a glance")

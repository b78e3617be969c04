"""Escaped text in one line, in Markdown and in code."""

import html

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from medrobust.core.text import code_block, is_printable, markdown, one_line

#: CommonMark with the extensions of GitHub that act inside a line, and with HTML.
GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HOSTILE = [
    "# Audit of the split: clean", "**Audit of the split: clean**", "a\n\n**Audit of the split: clean**\n", "---",
    "- item", "+ item", "1. item", "12) item", "> quote", "===", "===\n", "[x](javascript:alert(1))",
    "![x](http://x/y.png)", "[x]: http://x", "[^1]: note", "[ ] task", "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>", "</details>", "<!-- x", "`code", "```", "~~~", "a|b", "a\\|b", "\\",
    "&lt;b&gt;", "&#35; x", "$x$", "~x~", "*x*", "_x_", "__x__", "a_b", "_a_b_", "    code", "\tcode",
    "| a | b |", "x\r# y", "x\u2028# y", "\u202eclean", "a\x1b[31mb", "http://x.y/a_b", "<http://x.y>", "x  \ny",
    "a\\\nb", "R&D", "a & b;",
]  # fmt: skip


def shown(text: str) -> str:
    """The HTML of a line of text that means nothing else, without what prevents mentions."""
    return html.escape(one_line(text).strip(), quote=False).replace('"', "&quot;")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\\`*_[]()#+-=.|<>~$!&\n 1a:")), max_size=30))
def test_markdown_shows_any_text_and_nothing_else(text: str) -> None:
    check_shown(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_hostile_text_and_nothing_else(text: str) -> None:
    check_shown(text)


def check_shown(text: str) -> None:
    """In a paragraph, in both rows of a table and in a list."""
    written = markdown(text)
    wanted = shown(text)
    paragraph = GITHUB.render(written).replace("<!-- -->", "").strip()
    assert paragraph == (f"<p>{wanted}</p>" if wanted else "")
    cells = GITHUB.render(f"| {written} | b |\n| --- | --- |\n| {written} | 1 |").replace("<!-- -->", "")
    assert f"<th>{wanted}</th>\n<th>b</th>" in cells
    assert f"<td>{wanted}</td>\n<td>1</td>" in cells
    item = GITHUB.render(f"- {written}").replace("<!-- -->", "").strip()
    assert item == f"<ul>\n<li>{wanted}</li>\n</ul>"


@pytest.mark.parametrize(
    "text", ["0.712 [0.651, 0.770]", "resnet34_adv", "-0.12", "CC BY 4.0", "eps = 0.02", "3.5"]
)
def test_markdown_leaves_ordinary_text_alone(text: str) -> None:
    assert markdown(text) == text


def test_markdown_mentions_nobody() -> None:
    assert markdown("thanks @octocat, see #12") == "thanks @<!-- -->octocat, see #<!-- -->12"
    assert markdown("robust@0.02") == "robust@0.02"  # no mention within a word
    assert markdown("$x$") == "&dollar;x&dollar;"  # no mathematics on GitHub


def test_one_line_has_no_sign_that_hides_or_moves_others() -> None:
    assert one_line("a\n\r\n\t b\u2028c\x85d") == "a b c d"
    assert one_line("a\x1b[2Kb\x00\u202ec\u2066\u200bd\ufeff") == "a[2Kbcd"
    assert one_line("\udcffa") == "\ufffda"
    assert one_line("می\u200cخواهم") == "می\u200cخواهم"  # a joiner that the word needs
    assert one_line(12) == "12"


@pytest.mark.parametrize(("text", "printable"), [
    ("Mild AD", True), (">3mm", True), ("$x$", True), ("", False), (" ", False), ("a\nb", False), ("a  b", True),
    ("a\u2028b", False), ("a\u202eb", False),
])  # fmt: skip
def test_is_printable(text: str, printable: bool) -> None:
    assert is_printable(text) is printable


@given(st.text(max_size=30))
@example("a\n```\n# b")
@example("````")
def test_code_block_ends_at_its_own_fence(text: str) -> None:
    block = code_block(text, "yaml")
    [token] = MarkdownIt().parse(block)
    assert (token.type, token.info) == ("fence", "yaml")

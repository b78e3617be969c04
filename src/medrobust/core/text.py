"""Escape text from files and params (class names, licences, reasons) for one line, Markdown and code blocks."""

import re
import unicodedata
from typing import Any

#: Zero-width joiners that words of Persian and Indic languages need; other invisible characters are removed.
JOINERS = "\u200c\u200d"
#: Marks that end a link, start or end emphasis, code, mathematics or HTML, or separate the cells of a table. An
#: underscore within a word, and brackets without a target behind them, are no markup.
INLINE = re.compile(r"[\\`*|~]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|&(?=#?\w+;)")
#: Marks at the start of a line that make it a heading, an item of a list, a task, or a rule.
START = re.compile(r"^( *)(#(?=#{0,5}(?: |$))|[-+](?=[ -]|$)|=(?=[ =]|$)|\[(?=[ xX]\]))")
#: A number at the start of a line that makes it an item of a list.
ITEM = re.compile(r"^( *\d{1,9})([.)])(?= |$)")
#: Characters that GitHub reads as the start of a user, team or issue; an HTML comment behind them prevents it.
MENTION = re.compile(r"(?<!\w)([@#])(?=\w)")
ENTITIES = str.maketrans({"<": "&lt;", ">": "&gt;", "$": "&dollar;"})


def one_line(text: Any) -> str:
    """The text without line breaks, control characters, and marks that hide or reorder other characters.

    White space becomes one blank. A byte of a file name that is not valid text becomes U+FFFD.
    """
    line = re.sub(r"\s+", " ", str(text))
    return line if line.isprintable() else "".join(map(_visible, line))


def is_printable(text: str) -> bool:
    """Whether the text is one line, is not blank, and has no character that is invisible or reorders others."""
    return "".join(map(_visible, text)) == text and bool(text.strip())


def markdown(text: Any) -> str:
    """The text escaped for one line of GitHub's Markdown: shown literally, without markup, links or mentions."""
    line = INLINE.sub(r"\\\g<0>", one_line(text))
    line = ITEM.sub(r"\1\\\2", START.sub(r"\1\\\2", line))
    return MENTION.sub(r"\1<!-- -->", line.translate(ENTITIES))


def code_block(text: str, language: str = "") -> str:
    """A fenced block of Markdown; its fence is longer than every run of backticks in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _visible(sign: str) -> str:
    match unicodedata.category(sign):
        case "Cs":
            return "\ufffd"
        case "Cc" | "Zl" | "Zp":
            return ""
        case "Cf":
            return sign if sign in JOINERS else ""
    return sign

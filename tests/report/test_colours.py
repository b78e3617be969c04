"""Colours have enough contrast to their background, by the formula of WCAG 2.2."""

import re
from importlib.resources import files

import matplotlib as mpl
import numpy as np

from medrobust.report.figures.heat_map import ink


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two colours `#rrggbb` or `#rgb`."""

    def light(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05

    low, high = sorted((light(one), light(other)))
    return high / low


def test_lines_and_verdicts_of_both_schemes_stand_out() -> None:
    """WCAG 2.2, 1.4.11: lines of charts and the edges of verdicts have a contrast of 3."""
    style = files("medrobust.report.page").joinpath("page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root {(.*?)}", style, re.DOTALL)
    schemes = [dict(re.findall(r"--(\w+): (#[0-9a-f]+)", block)) for block in blocks]
    assert len(schemes) == 2
    for tokens in schemes:
        for name in ("good", "doubt", "bad", *(f"c{index}" for index in range(8))):
            assert contrast(tokens[name], tokens["ground"]) >= 3, name
            assert contrast(tokens[name], tokens["panel"]) >= 3, name


def test_numbers_of_a_heat_map_are_read_on_every_shade() -> None:
    for rate in np.linspace(0, 1, 201):
        shade = mpl.colors.to_hex(mpl.colormaps["Blues"](rate))
        assert contrast(mpl.colors.to_hex(ink(rate)), shade) >= 4.5, rate

"""The axis of a curve names what the radius of each norm is."""

import pytest

from medrobust.report.charts.robustness import radius_label


@pytest.mark.parametrize(
    ("norm", "label"),
    [
        ("Linf", "ε (L∞ radius, pixel range [0, 1])"),
        ("L2", "ε (L2 radius, pixel range [0, 1])"),
        ("patch", "ε (share of the pixels that the patch covers)"),
    ],
)
def test_the_label_names_the_radius(norm: str, label: str) -> None:
    assert radius_label(norm) == label

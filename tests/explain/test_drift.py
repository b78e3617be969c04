"""Measures of drift against hand-made maps and independent formulas."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from medrobust.explain.drift import (
    mass_inside,
    rank_correlation,
    summarise_drift,
    top_overlap,
    unrelated_overlap,
    with_interval,
)


def maps(seed: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 10, 10))


def test_overlap_counts_shared_pixels_of_the_top() -> None:
    first, second = np.zeros((1, 4, 4)), np.zeros((1, 4, 4))
    first[0, 0], second[0, :, 0] = [4, 3, 2, 1], [4, 3, 2, 1]
    assert top_overlap(first, second, 0.25) == 1 / 7
    assert top_overlap(first, first, 0.25) == 1
    assert top_overlap(first, first, 0.9) == 1, "zeros are no top, however large the share"
    second[0] = 0
    assert np.isnan(top_overlap(first, second, 0.25)), "a map of zeros has no top"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 0.95))
def test_overlap_is_symmetric_and_blind_to_scale(seed: int, share: float) -> None:
    first, second = maps(seed), maps(seed + 1)
    found = top_overlap(first, second, share)
    assert np.array_equal(found, top_overlap(second, first * 7, share))
    assert ((found >= 0) & (found <= 1)).all()


def test_independent_maps_overlap_as_computed() -> None:
    found = top_overlap(maps(0, 2000), maps(1, 2000), 0.2)
    assert found.mean() == pytest.approx(unrelated_overlap(0.2), abs=0.005)


def test_rank_correlation_is_pearsons_of_the_ranks() -> None:
    first, second = maps(2), maps(3).round(1)  # with ties
    wanted = [np.corrcoef(rankdata(a), rankdata(b))[0, 1] for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(rank_correlation(first, second), wanted)
    flat = np.ones_like(first)
    assert np.isnan(rank_correlation(first, flat)).all()


def test_mass_inside_is_a_share_or_not_defined() -> None:
    region = np.zeros((3, 10, 10), dtype=bool)
    region[:2, :5] = True
    even = np.ones((3, 10, 10))
    even[1] = 0
    found = mass_inside(even, region)
    assert found[0] == 0.5
    assert np.isnan(found[1:]).all(), "an empty map, an empty region"


def test_an_interval_is_over_patients_not_over_images() -> None:
    labels = np.zeros(400, dtype=int)
    values = np.repeat(np.random.default_rng(0).random(4), 100)
    alone = np.arange(400).astype(str)
    few = np.repeat(["a", "b", "c", "d"], 100)
    options: dict[str, Any] = {"resamples": 500, "confidence": 0.95}
    wide, narrow = (with_interval(values, who, labels, "iou", **options) for who in (few, alone))
    assert wide["iou"] == narrow["iou"] == values.mean()
    widths = [found["iou_ci"][1] - found["iou_ci"][0] for found in (wide, narrow)]
    assert widths[0] > 5 * widths[1]
    assert wide["iou_ci"][0] <= values.mean() <= wide["iou_ci"][1]


def test_what_is_not_defined_is_left_out() -> None:
    patients, labels = np.array(["a", "b", "c"]), np.array([0, 0, 0])
    found = with_interval(np.array([0.5, np.nan, 0.7]), patients, labels, "x", resamples=50, confidence=0.9)
    assert (found["x"], found["x_n"]) == (pytest.approx(0.6), 2)
    none = with_interval(np.full(3, np.nan), patients, labels, "x", resamples=50, confidence=0.9)
    assert none == {"x": None, "x_ci": None, "x_n": 0}


def test_images_whose_prediction_changed_are_summarised_apart() -> None:
    table = pd.DataFrame({
        "id": list("abcd"), "patient": list("abcd"), "label": 0, "changed": [True, True, False, False],
        "iou": [0.1, 0.3, 0.8, 1.0], "rank": [0.0, 0.2, 0.9, 1.0], "inside_clean": 0.5,
    })  # fmt: skip
    found = summarise_drift(table, resamples=100, confidence=0.95)
    assert found["iou"] == pytest.approx(0.55)
    assert found["iou_changed"] == pytest.approx(0.2)
    assert found["rank_changed"] == pytest.approx(0.1)
    assert "inside_clean_changed" not in found
    calm = summarise_drift(table.assign(changed=False), resamples=100, confidence=0.95)
    assert calm["iou_changed"] is None

"""Images of the page are chosen by rule: worst errors first, the others evenly spaced."""

import numpy as np
import pytest

from medrobust.cases.choice import choose_images, worst_wrong


def test_the_most_distant_and_then_the_most_confident_wrong_answers() -> None:
    labels, answers = np.array([0, 0, 1, 2, 2, 1]), np.array([2, 1, 1, 0, 1, 0])
    sure = np.array([0.5, 0.9, 0.99, 0.8, 0.9, 0.4])
    assert worst_wrong(labels, answers, sure, ordered=True, most=9).tolist() == [3, 0, 1, 4, 5]
    assert worst_wrong(labels, answers, sure, ordered=True).tolist() == [3, 0]
    assert worst_wrong(labels, answers, sure, ordered=False, most=3).tolist() == [1, 4, 3], "no grades"
    assert worst_wrong(labels, labels, sure, ordered=True).tolist() == []


def test_errors_fill_two_thirds_in_turn_and_the_others_are_evenly_spaced() -> None:
    worst = [np.array([7, 3]), np.array([7, 9]), np.array([50])]
    chosen, errors = choose_images(worst, 100, 12)
    assert errors == 4
    assert {3, 7, 9, 50} < set(chosen.tolist())
    rest = np.setdiff1d(chosen, [3, 7, 9, 50])
    assert (len(chosen), rest[0], rest[-1]) == (12, 0, 99)
    assert np.diff(rest).max() - np.diff(rest).min() <= 4
    chosen, errors = choose_images(worst, 100, 3)
    assert (errors, len(chosen)) == (2, 3)
    assert {7, 50} < set(chosen.tolist()), "the worst of each model before the second of any"


@pytest.mark.parametrize(("images", "count", "expected"), [(4, 12, 4), (100, 1, 1), (1, 5, 1)])
def test_few_images(images: int, count: int, expected: int) -> None:
    chosen, errors = choose_images([np.array([0])], images, count)
    assert len(chosen) == len(set(chosen.tolist())) == expected
    assert errors == (0 if count == 1 else 1)


def test_without_errors_all_are_evenly_spaced() -> None:
    chosen, errors = choose_images([np.array([], dtype=int)], 9, 7)
    assert (chosen.tolist(), errors) == ([0, 1, 3, 4, 5, 7, 8], 0)

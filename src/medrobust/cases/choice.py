"""Which test images are shown one by one: the worst wrong answers of the models, and images without a choice."""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

#: Wrong answers per model, of which the report has a table.
WORST = 2


def worst_wrong(
    labels: np.ndarray, answers: np.ndarray, sure: np.ndarray, *, ordered: bool, most: int = WORST
) -> np.ndarray:  # fmt: skip
    """Positions of wrong answers: the largest distance of the grades first, of equal ones the most confident.

    Args:
        labels: int, n.
        answers: int, n.
        sure: n, the confidence of the answers or its logarithm.
        ordered: whether the classes are grades; otherwise every wrong answer is one grade away.
        most: how many positions at most.
    """
    away = np.abs(answers - labels) if ordered else (answers != labels).astype(int)
    order = np.lexsort((-sure, -away))
    wrong: np.ndarray = order[away[order] > 0][:most]
    return wrong


def choose_images(worst: Sequence[np.ndarray], images: int, count: int) -> tuple[np.ndarray, int]:
    """Positions of `count` of n test images, rising, and how many of them are wrong answers of `worst`.

    Args:
        worst: positions of the wrong answers of each model, the worst first. The worst ones of all models come
            first, then the second ones. They fill at most two thirds, so that some images are shown that nobody
            chose: the others are evenly spaced.
        images: n.
        count: how many images at most.
    """
    in_turn = [int(each) for rank in zip_longest(*worst) for each in rank if each is not None]
    errors = list(dict.fromkeys(in_turn))[: 2 * count // 3]
    others = np.setdiff1d(np.arange(images), errors)
    wanted = min(count - len(errors), len(others))
    spaced = others[np.unique(np.linspace(0, len(others) - 1, wanted).round().astype(int))]
    return np.sort(np.concatenate([spaced, np.array(errors, dtype=int)])), len(errors)

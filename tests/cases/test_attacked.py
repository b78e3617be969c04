"""The attacked versions of a few images are those of the evaluation of all images."""

from typing import Any

import pytest
import torch

from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.streaming import Attempt, AttemptResult
from medrobust.attacks.projection import distance
from medrobust.cases.attacked import _versions, attack_again
from tests.cases.small_run import L2, PGD, SEED, splits, trained


@pytest.mark.parametrize("suite", [PGD, L2], ids=["pgd", "l2"])
def test_the_same_radius_and_attack_as_in_the_evaluation_of_all_images(suite: dict[str, Any]) -> None:
    test = splits().test
    records = worst_case(attack_suite(trained(), test, suite, seed=SEED), suite["eps"])
    some = test.evenly_spaced(13)
    found = dict(zip(some.ids, attack_again(trained(), some, suite, seed=SEED), strict=True))
    assert len({image.fooled_at for image in found.values()}) > 2, "wrong, fooled and robust images"
    for name, image in found.items():
        rows = records[(records["id"] == name) & records["fooled"]]
        expected = (rows["fooled_at"].iloc[0], rows["fooled_by"].iloc[0]) if len(rows) else (None, None)
        assert (image.fooled_at, image.fooled_by) == expected


@pytest.mark.parametrize("suite", [PGD, L2], ids=["pgd", "l2"])
def test_versions_lie_in_their_balls_and_fool_from_the_recorded_radius_on(suite: dict[str, Any]) -> None:
    test = splits().test
    clean, labels, count = test.batch(range(len(test))), test.targets(range(len(test))), 0
    for row, image in enumerate(attack_again(trained(), test, suite, seed=SEED)):
        radii = [version.eps for version in image.versions]
        assert radii == sorted(set(radii))
        if image.fooled_at == 0:
            assert not radii, "the evaluation attacks no image that is wrong without an attack"
        else:
            assert suite["eps"][-1] in radii
        for version in image.versions:
            moved = version.result.image[None]
            assert float(distance(moved, clean[row][None], suite["norm"])) <= version.eps * 1.0001
            with torch.no_grad():
                wrong = int(trained()(moved).argmax()) != int(labels[row])
            assert wrong == (image.fooled_at is not None and version.eps >= image.fooled_at)
            count += 1
    assert count > 20


def result(eps: float, margin: float, distance: float) -> tuple[str, AttemptResult]:
    image = torch.zeros(1, 2, 2)
    return "a", AttemptResult(Attempt(0, eps, 0, None), image, 0, margin, distance, 0.0, 0.0, 1, 1, 0)


def test_a_radius_has_the_success_that_uses_most_of_it_or_the_closest_attempt_or_nothing() -> None:
    found = [result(0.4, 0.1, 0.4), result(0.2, 0.1, 0.15), result(0.1, -0.5, 0.1), result(0.1, -0.2, 0.1)]
    chosen = {version.eps: version.result for version in _versions(found, [0.05, 0.1, 0.2, 0.4])}
    assert {eps: (each.margin, each.distance) for eps, each in chosen.items()} == {
        0.1: (-0.2, 0.1), 0.2: (0.1, 0.15), 0.4: (0.1, 0.4),
    }  # fmt: skip


def test_an_attack_without_a_ball_counts_at_every_radius_above_its_distance() -> None:
    chosen = _versions([result(0.4, 0.1, 0.12)], [0.1, 0.2, 0.4])
    assert [version.eps for version in chosen] == [0.2, 0.4]

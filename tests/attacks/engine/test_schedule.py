"""Each attack fails once per image, unless its failures say nothing about smaller radii."""

from typing import ClassVar

import pytest
import torch

from medrobust.attacks.base import Attack
from medrobust.attacks.engine.schedule import ImageSchedule
from medrobust.attacks.engine.streaming import Attempt, AttemptResult
from medrobust.attacks.methods.iterative import FGSM, PGD

RADII = [0.01, 0.02, 0.03, 0.04]


class Nearest(FGSM):
    """Stands for an attack that looks for the nearest adversarial image."""

    respects_ball: ClassVar[bool] = False


def result_of(attempt: Attempt, distance: float | None, margin: float = -1.0) -> AttemptResult:
    """A result of an attempt; with a distance, a success."""
    fooled = distance is not None
    image = torch.full((1, 2, 2), attempt.eps)
    gap = 0.5 if fooled else margin
    return AttemptResult(attempt, image, 1, gap, distance or attempt.eps, 1.0, 1.0, 3, 4, 1)


def run_schedule(schedule: ImageSchedule, distances: dict[str, list[float | None]]) -> list[tuple[str, float]]:
    """Let attempts succeed at given distances or fail; return which attack was tried at which radius."""
    tried = []
    while (attempt := schedule.next_attempt()) is not None:
        name = f"{schedule.attack_index}"
        tried.append((name, attempt.eps))
        schedule.record_result(name, result_of(attempt, distances[name].pop(0)))
    return tried


def test_a_success_leads_to_smaller_radii_and_a_failure_ends_the_attack() -> None:
    schedule = ImageSchedule(0, RADII, [PGD(eps=0.04), PGD(eps=0.04, loss="margin")], 4)
    tried = run_schedule(schedule, {"0": [0.04, 0.03, None], "1": [0.02, None]})
    assert tried == [("0", 0.04), ("0", 0.03), ("0", 0.02), ("1", 0.02), ("1", 0.01)]
    assert schedule.fooled == 1
    assert [row["fooled"] for row in schedule.records] == [True, True, False, True, False]


def test_a_near_success_skips_radii() -> None:
    schedule = ImageSchedule(0, RADII, [PGD(eps=0.04)], 4)
    assert run_schedule(schedule, {"0": [0.015, None]}) == [("0", 0.04), ("0", 0.01)]
    assert schedule.fooled == 1


def test_the_first_attempt_starts_from_the_clean_image_and_is_repeated_from_a_random_start() -> None:
    schedule = ImageSchedule(0, RADII, [PGD(eps=0.04), PGD(eps=0.04, loss="margin")], 4)
    tried = []
    for distance in (None, 0.035, None, None):
        attempt = schedule.next_attempt()
        assert attempt is not None
        tried.append((schedule.attack_index, attempt.eps, attempt.from_clean, attempt.start is not None))
        schedule.record_result("pgd", result_of(attempt, distance))
    assert schedule.next_attempt() is None
    assert tried == [
        (0, 0.04, True, False), (0, 0.04, False, False), (0, 0.03, False, True), (1, 0.03, False, False)
    ]  # fmt: skip
    assert [(row["eps"], row["fooled"], row["gradients"]) for row in schedule.records] == [
        (0.04, True, 8), (0.03, False, 4), (0.03, False, 4)
    ]  # fmt: skip


def test_with_one_radius_or_without_random_starts_no_attempt_is_repeated() -> None:
    for radii, attack in ((RADII[:1], PGD(eps=0.01)), (RADII, PGD(eps=0.04, random_start=False))):
        attempt = ImageSchedule(0, radii, [attack], len(radii)).next_attempt()
        assert attempt is not None
        assert not attempt.from_clean


def test_an_attack_whose_failures_say_nothing_is_tried_at_every_radius() -> None:
    schedule = ImageSchedule(0, RADII, [FGSM(eps=0.04)], 4)
    assert run_schedule(schedule, {"0": [None, 0.03, None, None]}) == [("0", eps) for eps in reversed(RADII)]
    assert schedule.fooled == 2


def test_an_attack_without_a_ball_runs_once() -> None:
    schedule = ImageSchedule(0, RADII, [Nearest(eps=0.04), PGD(eps=0.04)], 4)
    assert run_schedule(schedule, {"0": [0.025], "1": [None]}) == [("0", 0.04), ("1", 0.02)]
    assert schedule.fooled == 2


def test_restarts_share_one_record_and_start_from_the_clean_image() -> None:
    schedule = ImageSchedule(0, RADII, [PGD(eps=0.04, restarts=3)], 4)
    starts, restarts = [], []
    for margin in (-4.0, -3.0, -1.0, None):
        attempt = schedule.next_attempt()
        assert attempt is not None
        assert attempt.eps == 0.04
        restarts.append(attempt.restart)
        starts.append(attempt.start)
        schedule.record_result("pgd", result_of(attempt, 0.04 if margin is None else None, margin or 0.0))
    assert restarts == [0, 0, 1, 2], "from the clean image, then three random starts"
    assert starts == [None] * 4
    attempt = schedule.next_attempt()
    assert attempt is not None
    assert (attempt.eps, attempt.restart) == (0.03, 0)
    assert attempt.start is not None, "the next radius starts from the success"
    [row] = schedule.records
    assert (row["fooled"], row["steps"], row["gradients"], row["queries"]) == (True, 12, 16, 4)


def test_the_restart_with_the_largest_margin_is_recorded() -> None:
    schedule = ImageSchedule(0, RADII[:1], [PGD(eps=0.01, restarts=2)], 1)
    for margin in (-1.0, -2.0):
        attempt = schedule.next_attempt()
        assert attempt is not None
        schedule.record_result("pgd", result_of(attempt, None, margin))
    assert schedule.next_attempt() is None
    assert schedule.records[0]["margin"] == -1.0


def test_an_image_that_is_already_wrong_is_not_attacked() -> None:
    assert ImageSchedule(0, RADII, [PGD(eps=0.04)], 0).next_attempt() is None


@pytest.mark.parametrize("attack", [FGSM(eps=0.04), PGD(eps=0.04)])
def test_every_schedule_ends(attack: Attack) -> None:
    for pattern in range(16):
        distances = [RADII[0] if pattern >> bit & 1 else None for bit in range(16)]
        schedule = ImageSchedule(0, RADII, [attack] * 2, 4)
        assert len(run_schedule(schedule, {"0": list(distances), "1": list(distances)})) <= 9


def test_only_the_first_restart_starts_from_the_last_success() -> None:
    schedule = ImageSchedule(0, RADII, [PGD(eps=0.04, restarts=2)], 4)
    started = []
    for distance in (0.04, None, 0.03):
        attempt = schedule.next_attempt()
        assert attempt is not None
        started.append((attempt.restart, attempt.start is not None))
        schedule.record_result("pgd", result_of(attempt, distance))
    assert started == [(0, False), (0, True), (1, False)]

"""An image goes down the radii: each attack fails once, unless its failures say nothing about smaller balls."""

from typing import ClassVar

import pytest
import torch

from medrobust.attacks.base import Attack
from medrobust.attacks.engine.schedule import Course
from medrobust.attacks.engine.streaming import Outcome, Task
from medrobust.attacks.methods.pgd import FGSM, PGD

RADII = [0.01, 0.02, 0.03, 0.04]


class Nearest(FGSM):
    """Stands for an attack that seeks the nearest adversarial image."""

    bound: ClassVar[bool] = False


def outcome(task: Task, distance: float | None, margin: float = -1.0, way: float = 1.0) -> Outcome:
    """What came of a task; a distance means that it fooled."""
    fooled = distance is not None
    found = torch.full((1, 2, 2), task.eps)
    return Outcome(task, found, 1, 0.5 if fooled else margin, distance or task.eps, 1.0, way, 3, 4, 1)


def drive(course: Course, answers: dict[str, list[float | None]]) -> list[tuple[str, float]]:
    """Let attempts end as told; which attack was tried at which radius."""
    tried = []
    while (task := course.next()) is not None:
        name = f"{course.stage}"
        tried.append((name, task.eps))
        course.take(name, outcome(task, answers[name].pop(0)))
    return tried


def test_success_leads_down_and_failure_ends_the_attack() -> None:
    course = Course(0, RADII, [PGD(eps=0.04), PGD(eps=0.04, loss="margin")], 4)
    tried = drive(course, {"0": [0.04, 0.03, None], "1": [0.02, None]})
    assert tried == [("0", 0.04), ("0", 0.03), ("0", 0.02), ("1", 0.02), ("1", 0.01)]
    assert course.fooled == 1
    assert [row["fooled"] for row in course.rows] == [True, True, False, True, False]


def test_a_near_success_skips_radii() -> None:
    course = Course(0, RADII, [PGD(eps=0.04)], 4)
    assert drive(course, {"0": [0.015, None]}) == [("0", 0.04), ("0", 0.01)]
    assert course.fooled == 1


def test_the_first_attempt_seeks_from_the_clean_image_and_who_withstands_it_meets_the_random_start() -> None:
    course = Course(0, RADII, [PGD(eps=0.04), PGD(eps=0.04, loss="margin")], 4)
    tried = []
    for distance in (None, 0.035, None, None):
        task = course.next()
        assert task is not None
        tried.append((course.stage, task.eps, task.plain, task.place is not None))
        course.take("pgd", outcome(task, distance))
    assert course.next() is None
    assert tried == [
        (0, 0.04, True, False), (0, 0.04, False, False), (0, 0.03, False, True), (1, 0.03, False, False)
    ]  # fmt: skip
    assert [(row["eps"], row["fooled"], row["gradients"]) for row in course.rows] == [
        (0.04, True, 8), (0.03, False, 4), (0.03, False, 4)
    ]  # fmt: skip


def test_with_one_radius_or_without_random_starts_nothing_is_sought() -> None:
    for radii, attack in ((RADII[:1], PGD(eps=0.01)), (RADII, PGD(eps=0.04, random_start=False))):
        task = Course(0, radii, [attack], len(radii)).next()
        assert task is not None
        assert not task.plain


def test_an_attack_whose_failures_do_not_nest_is_tried_at_every_radius() -> None:
    course = Course(0, RADII, [FGSM(eps=0.04)], 4)
    assert drive(course, {"0": [None, 0.03, None, None]}) == [("0", eps) for eps in reversed(RADII)]
    assert course.fooled == 2


def test_an_attack_without_a_ball_runs_once() -> None:
    course = Course(0, RADII, [Nearest(eps=0.04), PGD(eps=0.04)], 4)
    assert drive(course, {"0": [0.025], "1": [None]}) == [("0", 0.04), ("1", 0.02)]
    assert course.fooled == 2


def test_restarts_add_up_in_one_record_and_begin_afresh() -> None:
    course = Course(0, RADII, [PGD(eps=0.04, restarts=3)], 4)
    places, restarts = [], []
    for margin in (-4.0, -3.0, -1.0, None):
        task = course.next()
        assert task is not None
        assert task.eps == 0.04
        restarts.append(task.restart)
        places.append(task.place)
        course.take("pgd", outcome(task, 0.04 if margin is None else None, margin or 0.0))
    assert restarts == [0, 0, 1, 2], "from the clean image, then three random starts"
    assert places == [None] * 4
    task = course.next()
    assert task is not None
    assert (task.eps, task.restart) == (0.03, 0)
    assert task.place is not None, "a success is where the next radius starts"
    [row] = course.rows
    assert (row["fooled"], row["steps"], row["gradients"], row["queries"]) == (True, 12, 16, 4)


def test_the_restart_with_the_largest_margin_is_told() -> None:
    course = Course(0, RADII[:1], [PGD(eps=0.01, restarts=2)], 1)
    for margin in (-1.0, -2.0):
        task = course.next()
        assert task is not None
        course.take("pgd", outcome(task, None, margin))
    assert course.next() is None
    assert course.rows[0]["margin"] == -1.0


def test_an_image_that_is_wrong_already_meets_no_attack() -> None:
    assert Course(0, RADII, [PGD(eps=0.04)], 0).next() is None


@pytest.mark.parametrize("attack", [FGSM(eps=0.04), PGD(eps=0.04)])
def test_every_course_ends(attack: Attack) -> None:
    for pattern in range(16):
        answers = [RADII[0] if pattern >> bit & 1 else None for bit in range(16)]
        course = Course(0, RADII, [attack] * 2, 4)
        assert len(drive(course, {"0": list(answers), "1": list(answers)})) <= 9


def test_only_the_first_restart_begins_at_the_last_success() -> None:
    course = Course(0, RADII, [PGD(eps=0.04, restarts=2)], 4)
    begun = []
    for distance in (0.04, None, 0.03):
        task = course.next()
        assert task is not None
        begun.append((task.restart, task.place is not None))
        course.take("pgd", outcome(task, distance))
    assert begun == [(0, False), (0, True), (1, False)]

"""The registry, its documentation, and what a check may say."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from medrobust.checklist.base import Check, Measured, Outcome, judge, surely, verdict
from medrobust.checklist.registry import CHECKS
from tests.checklist import test_fixtures, test_suite_checks


def rows(root: Path, heading: str) -> list[list[str]]:
    """Cells of the table under a heading of docs/checklist.md."""
    part = (root / "docs" / "checklist.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = re.findall(r"^\| (.+) \|$", part, flags=re.MULTILINE)
    return [line.split(" | ") for line in lines[1:]]


def number(cell: str) -> float | None:
    return None if cell == "–" else float(cell)


@pytest.mark.parametrize("of", ["model", "suite"])
def test_the_documentation_lists_exactly_the_registry_with_its_thresholds(of: str, root: Path) -> None:
    told = [(row[0], number(row[2]), number(row[3])) for row in rows(root, f"Checks of a {of}")]
    assert told == [(check.name, check.warn, check.fail) for check in CHECKS if check.of == of]


def test_every_check_is_whole_and_has_its_own_name() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert check.measures
        assert check.means
        assert check.remedy
        assert check.warn is not None or check.fail is not None
        assert check.warn is None or check.fail is None or check.warn < check.fail


def test_every_check_is_shown_to_catch_something() -> None:
    caught = {name for name, _ in test_fixtures.FAULTS.values()}
    caught |= {name for _, name, _ in test_fixtures.WEAKNESSES.values()}
    caught |= test_fixtures.ALSO | set(test_suite_checks.CAUGHT)
    assert {check.name for check in CHECKS} == caught


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (None, "skip"),
        (0.0, "pass"),
        (0.1, "pass"),
        (0.11, "warn"),
        (0.5, "warn"),
        (0.51, "fail"),
        (float("nan"), "fail"),
    ],
)
def test_a_number_is_judged_by_its_thresholds(value: float | None, outcome: Outcome) -> None:
    check = Check("c", "model", "m", 0.1, 0.5, "x", "y", lambda _: Measured(value, "text"))
    assert judge(check, None).outcome == outcome  # type: ignore[arg-type]


def test_the_worst_outcome_is_the_verdict() -> None:
    assert verdict([]) == verdict(["pass", "skip"]) == "no problem found"
    assert verdict(["pass", "warn"]) == "suspect"
    assert verdict(["warn", "fail", "pass"]) == "invalid"


@given(st.integers(1, 200).flatmap(lambda total: st.tuples(st.integers(1, total), st.just(total))))
def test_what_is_surely_so_is_the_exact_one_sided_bound(pair: tuple[int, int]) -> None:
    """At the bound, seeing as many or more has a chance of 5 %; that is what defines it."""
    count, total = pair
    bound = surely(count, total)
    assert 0 < bound < count / total
    assert binom.sf(count - 1, total, bound) == pytest.approx(0.05, abs=1e-6)
    assert surely(0, total) == 0

"""The registry of checks and its documentation, outcomes and verdicts."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from medrobust.checklist.base import Check, Measurement, Outcome, lower_bound, run_check, verdict
from medrobust.checklist.thresholds import CHECKS
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
    documented = [(row[0], number(row[2]), number(row[3])) for row in rows(root, f"Checks of a {of}")]
    assert documented == [(check.name, check.warn, check.fail) for check in CHECKS if check.of == of]


def test_every_check_is_complete_and_has_a_unique_name() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert check.measures
        assert check.means
        assert check.remedy
        assert check.warn is not None or check.fail is not None
        assert check.warn is None or check.fail is None or check.warn < check.fail


def test_every_check_catches_a_fault_in_some_test() -> None:
    caught = {name for name, _ in test_fixtures.FAULTS.values()}
    caught |= {name for _, name, _ in test_fixtures.WEAKNESSES.values()}
    caught |= test_fixtures.OTHERS | set(test_suite_checks.CAUGHT)
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
def test_the_outcome_follows_the_thresholds(value: float | None, outcome: Outcome) -> None:
    check = Check("c", "model", "m", 0.1, 0.5, "x", "y", lambda _: Measurement(value, "text"))
    assert run_check(check, None).outcome == outcome  # type: ignore[arg-type]


def test_the_worst_outcome_is_the_verdict() -> None:
    assert verdict([]) == verdict(["pass", "skip"]) == "no problem found"
    assert verdict(["pass", "warn"]) == "suspect"
    assert verdict(["warn", "fail", "pass"]) == "invalid"


@given(st.integers(1, 200).flatmap(lambda total: st.tuples(st.integers(1, total), st.just(total))))
def test_the_lower_bound_is_the_exact_one_sided_one(pair: tuple[int, int]) -> None:
    """By definition: if the bound is the true share, as many or more are seen with a probability of 5 %."""
    count, total = pair
    bound = lower_bound(count, total)
    assert 0 < bound < count / total
    assert binom.sf(count - 1, total, bound) == pytest.approx(0.05, abs=1e-6)
    assert lower_bound(0, total) == 0

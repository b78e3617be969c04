"""Block `report`: tables of repeated runs, at most one of a kind."""

from pathlib import Path

import pytest

from medrobust.core.errors import UserError
from tests.core.params.changed import load_changed


def test_a_table_is_over_seeds_or_folds_and_there_is_one_of_each_at_most(tmp_path: Path) -> None:
    entry = {"over": "seeds", "file": "a.csv"}
    found = load_changed(tmp_path, "report.repeated", [entry, {**entry, "over": "folds"}])
    assert [table.over for table in found.report.repeated] == ["seeds", "folds"]
    with pytest.raises(UserError, match=r"report\.repeated: got .*Name one table over seeds and one over folds"):
        load_changed(tmp_path, "report.repeated", [entry, {**entry, "file": "b.csv"}])
    with pytest.raises(UserError, match=r"report\.repeated\.0\.over: got 'classes'.*'seeds' or 'folds'"):
        load_changed(tmp_path, "report.repeated", [{**entry, "over": "classes"}])

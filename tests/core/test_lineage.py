"""What a result was made on, and how it differs from what a reader has."""

from pathlib import Path

import pandas as pd
import pytest

from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON, check_made_on, difference, suite_hash
from medrobust.core.records import read_table, write_table

MADE = {"weights": "w", "data": "d", "split": "s", "suites": {"a": "1", "b": "2"}}


def test_what_differs_is_named_and_what_is_unknown_is_not_compared() -> None:
    assert difference(MADE, {"weights": "w", "data": None, "split": "s"}) is None
    assert difference(MADE, {"weights": "x"}) == "was made on weights other than this model's"
    assert difference(MADE, {"data": "x"}) == "was made on other images"
    assert difference(MADE, {"split": "x"}) == "was made on another split"
    assert difference(MADE, {"suite": "x"}) == "was made on another suite of attacks"
    assert difference(MADE, {"suites": {"a": "1", "c": "3"}}) is None, "only those that both have"
    assert difference(MADE, {"suites": {"a": "1", "b": "3"}}) == "was made on another suite of attacks"
    assert difference(MADE, {"models": {"m": "w"}}) == "was made on weights other than those of this run's models"
    assert difference(None, {}) == "does not say what it was made on"


def test_a_table_keeps_what_it_was_made_on_and_its_reader_checks_it(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["a"]})
    table.attrs[MADE_ON] = MADE
    path = tmp_path / "t.parquet"
    write_table(path, table)
    found = read_table(path).attrs[MADE_ON]
    check_made_on(path, found, {"weights": "w"})
    with pytest.raises(UserError, match=r"t\.parquet: was made on other images\. Run `dvc repro --force`"):
        check_made_on(path, found, {"data": "x"})


def test_a_suite_is_its_threat_model_and_attacks_and_not_their_code() -> None:
    suite = {
        "name": "a",
        "norm": "L2",
        "eps": [1.0],
        "attacks": [{"name": "pgd", "hyperparameters": {"steps": 3}}],
    }
    assert suite_hash({**suite, "code": {"attacks/pgd": "1"}}) == suite_hash(suite)
    assert suite_hash({**suite, "eps": [2.0]}) != suite_hash(suite)
    weaker = [{"name": "pgd", "hyperparameters": {"steps": 2}}]
    assert suite_hash({**suite, "attacks": weaker}) != suite_hash(suite)

"""Results are compared only where they stand on the same data."""

from typing import Any

import pytest
import yaml

from tools.same_data import comparable, on_other_data, read_lock, same_data


def lock(raw: str, prepared: str, cells: dict[str, str]) -> dict[str, Any]:
    """The stages of a dvc.lock: hashes of the data, and the prepared data on which each cell ran."""
    stages: dict[str, Any] = {
        "download": {"cmd": "", "outs": [{"path": "data/raw", "md5": raw}]},
        "prepare": {"cmd": "", "deps": [{"path": "data/raw", "md5": raw}],
                    "outs": [{"path": "data/prepared", "md5": prepared}]},
    }  # fmt: skip
    for name, known in cells.items():
        stages[name] = {
            "cmd": "",
            "deps": [{"path": "data/code/x", "md5": "c"}, {"path": "data/prepared", "md5": known}],
            "outs": [{"path": f"metrics/{name}.json", "md5": "m"}],
        }
    return dict(read_lock(yaml.safe_dump({"schema": "2.0", "stages": stages})))


DEMO = lock("raw", "small", {"a": "small", "b": "small"})


@pytest.mark.parametrize(
    ("other", "same", "metrics"),
    [
        (lock("raw", "small", {"a": "small", "b": "small"}), True, {"a", "b"}),
        (lock("raw", "large", {"a": "large", "b": "large"}), True, {"a", "b"}),  # another image size
        (lock("other facts", "small", {"a": "small", "b": "small"}), True, {"a", "b"}),
        (lock("own", "of own", {"a": "of own", "b": "of own"}), False, set()),
        (lock("own", "of own", {"a": "of own", "b": "small"}), False, set()),
        (lock("raw", "large", {"a": "large", "b": "small"}), True, {"a"}),  # b has not run yet
        (lock("raw", "small", {"a": "small", "new": "small"}), True, {"a"}),
        ({}, False, set()),
    ],
)
def test_two_runs_are_compared_where_their_data_are_the_same(
    other: dict[str, Any], same: bool, metrics: set[str]
) -> None:
    for old, new in ((DEMO, other), (other, DEMO)):
        assert same_data(old, new) == same
        found = {path for path in comparable(old, new) if path.startswith("metrics/")}
        assert found == {f"metrics/{name}.json" for name in metrics}


def test_a_cell_that_ran_on_earlier_data_is_found() -> None:
    assert on_other_data(DEMO) == set()
    assert on_other_data(lock("own", "of own", {"a": "of own", "b": "small"})) == {"b"}
    assert on_other_data({}) == set()

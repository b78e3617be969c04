"""A finished run for the report's tests."""

from pathlib import Path

import pytest

from tests.report.runs import write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The results of a run with two backbones, three classes and one suite."""
    write_run(tmp_path)
    return tmp_path

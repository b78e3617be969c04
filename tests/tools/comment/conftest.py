"""A small pipeline that has run."""

from pathlib import Path

import pytest

from tests.tools.comment.pipeline import finished


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return finished(tmp_path / "repository")

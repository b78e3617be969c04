"""Patients are read from the file names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.data.sources import oct2017
from tests.data.sources.conftest import Make
from tests.data.sources.samples import encoded


def test_patients_and_splits_are_read(sample: Callable[[str], dict[str, Any]], make: Make) -> None:
    store = make(sample("oct2017"))
    assert store.manifest["patient"].tolist() == ["1004", "1014", "1024", "1034", "1005", "1015", "1025", "1035"]
    assert store.manifest["published_split"].value_counts().to_dict() == {"train": 4, "test": 4}
    assert store.header.verified == "file names; not a complete release"
    assert store.header.licence == "unknown"
    assert store.header.doubt == "8 images with names as in OCT2017, but not a complete release of it"


def test_a_complete_release_is_recognised_by_its_counts(
    sample: Callable[[str], dict[str, Any]], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oct2017, "RELEASES", {"x": {"CNV": 2, "DME": 2, "DRUSEN": 2, "NORMAL": 2}})
    header = make(sample("oct2017")).header
    assert (header.verified, header.doubt) == ("class counts of the release of x", "")
    assert header.licence == "CC BY 4.0"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CNV/scan_17.jpeg", r"scan_17\.jpeg: has no patient id in its name.*data\.source: archive"),
        ("CNV/DME-17-1.jpeg", r"is DME by its name, but in the folder CNV"),
    ],
)
def test_a_file_that_is_not_named_as_published_is_refused(
    name: str, message: str, tmp_path: Path, make: Make
) -> None:
    for path in (name, "CNV/CNV-1-1.jpeg", "DME/DME-2-1.jpeg"):
        (tmp_path / "oct" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "oct" / path).write_bytes(encoded(len(path), kind="JPEG"))
    with pytest.raises(UserError, match=message):
        make({"source": "oct2017", "classes": ["CNV", "DME"], "path": str(tmp_path / "oct")})

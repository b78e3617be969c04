"""Writes are atomic; errors name the file and the remedy."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from medrobust.core.errors import UserError
from medrobust.core.records import (
    atomic_dir,
    atomic_file,
    file_hash,
    read_json,
    read_metrics,
    read_table,
    write_json,
    write_metrics,
    write_table,
)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(OSError, match="disk full"), atomic_file(target) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == ["a.json"]


def test_a_failed_folder_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic_dir(target) as temporary:
        (temporary / "weights").write_text("first")
    with pytest.raises(OSError, match="disk full"), atomic_dir(target) as temporary:
        (temporary / "weights").write_text("second")
        raise OSError("disk full")
    assert (target / "weights").read_text() == "first"
    assert leftovers(tmp_path) == ["model"]


def _write_to(path: Path) -> None:
    path.write_bytes(b"x" * 2**20)


def _fail_with_a_message(path: Path) -> None:
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def _fail_with_a_cause(path: Path) -> None:
    try:
        path.write_bytes(b"x" * 2**20)
    except OSError:
        raise RuntimeError("unexpected pos 704 vs 598") from None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full exists only on Linux")
@pytest.mark.parametrize("write", [_write_to, _fail_with_a_message, _fail_with_a_cause])
def test_a_full_disk_is_reported_and_the_old_file_stays(tmp_path: Path, write: Callable[[Path], None]) -> None:
    target = tmp_path / "a.bin"
    target.write_text("old")
    message = r"a\.bin: cannot be written: No space left on device\. The previous version is intact"
    with pytest.raises(UserError, match=message), atomic_file(target) as temporary:
        temporary.symlink_to("/dev/full")
        write(temporary)
    with (
        pytest.raises(UserError, match=r"folder: cannot be written"),
        atomic_dir(tmp_path / "folder") as temporary,
    ):
        (temporary / "part").symlink_to("/dev/full")
        write(temporary / "part")
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == ["a.bin"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic_dir(target) as temporary:
        (temporary / "old").touch()
    with atomic_dir(target) as temporary:
        (temporary / "new").touch()
    assert leftovers(target) == ["new"]


def test_json_keeps_order_and_rounds(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"b": 1 / 3, "a": [2 / 3, math.nan], "n": 7}, digits=3)
    assert (tmp_path / "m.json").read_text().index('"b"') < (tmp_path / "m.json").read_text().index('"a"')
    assert read_json(tmp_path / "m.json") == {"b": 0.333, "a": [0.667, None], "n": 7}


def test_json_refuses_infinity(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "m.json", {"loss": math.inf})
    assert leftovers(tmp_path) == []


def test_dvc_shows_only_the_selected_values_of_a_metrics_file(tmp_path: Path) -> None:
    from dvc.repo.metrics.show import _extract_metrics

    record = {"accuracy": 2 / 3, "by_class": {"Mild": {"recall": 0.25}}, "why": "text", "missing": None}
    write_metrics(tmp_path / "m.json", record, {"accuracy": 0.67, "auroc": None})
    assert read_metrics(tmp_path / "m.json") == {**record, "accuracy": 0.666667}
    assert _extract_metrics(read_json(tmp_path / "m.json"), "m.json") == {"accuracy": 0.67}


def test_rounding_a_record_to_three_decimals_equals_rounding_the_exact_value(tmp_path: Path) -> None:
    """Rounded to four decimals first, a balanced accuracy of 0.404464 would be shown as 0.405."""
    shares = [0.404464, *(k / n for n in (42, 96, 100, 112, 672, 899) for k in range(n + 1))]
    write_metrics(tmp_path / "m.json", {"shares": shares}, {})
    stored = read_metrics(tmp_path / "m.json")["shares"]
    assert [f"{share:.3f}" for share in stored] == [f"{share:.3f}" for share in shares]
    assert any(f"{round(share, 4):.3f}" != f"{share:.3f}" for share in shares)


def test_a_file_without_details_is_not_a_metrics_file(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"accuracy": 0.5})
    with pytest.raises(UserError, match=r"m\.json: is not a metrics file .*no `details`.*Run `dvc repro`"):
        read_metrics(tmp_path / "m.json")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_survives_a_round_trip(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"id": ["a", "b"], "value": [0.5, 1.5]})
    write_table(tmp_path / name, table)
    pd.testing.assert_frame_equal(read_table(tmp_path / name), table)


def test_missing_and_damaged_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"m\.json: no such file"):
        read_json(tmp_path / "m.json")
    with pytest.raises(UserError, match=r"t\.csv: no such file"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(UserError, match="damaged JSON"):
        read_json(tmp_path / "m.json")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_damaged_table_is_reported(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match=rf"{name}: damaged table .*Delete it and run"):
        read_table(tmp_path / name)


def test_the_hash_of_a_file_is_the_hash_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    assert file_hash(tmp_path / "a", "md5") == hashlib.md5(b"abc").hexdigest()

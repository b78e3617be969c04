"""The last time of each stage, slowest first."""

from pathlib import Path

import pytest

from tools import timings


def test_only_the_last_run_of_a_stage_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timings, "TIMINGS", tmp_path / "timings.csv")
    with pytest.raises(SystemExit, match=r"no such file\. Run `make repro` first"):
        timings.main()
    (tmp_path / "timings.csv").write_text("a,9.0,8.0,100,1\nb,2.0,2.0,100,1\na,3.0,2.5,120,1\n")
    timings.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [["a", "3.0", "2.5", "120", "1"], ["b", "2.0", "2.0", "100", "1"], ["sum", "5.0", "4.5"]]

"""The stage writes all its outputs, and with `on_leak: fail` then stops the run."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medrobust.core.errors import UserError
from medrobust.core.records import read_metrics, read_table, write_table
from medrobust.data.split import make_split
from medrobust.data.store import write_store
from stages import audit
from tests.data.stores import split_params, store
from tests.params import preset, save


@pytest.mark.parametrize(("on_leak", "pictures"), [("warn", True), ("fail", False)])
def test_a_leak_is_written_and_stops_the_run_if_requested(
    on_leak: str,
    pictures: bool,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    params = preset()
    params["audit"]["on_leak"] = on_leak
    params["report"]["pictures"] = pictures
    save(tmp_path, params)
    data = store([4, 4, 4])
    table = make_split(data.manifest, data.header, split_params(strategy="random"), 0)
    (tmp_path / "prepared").mkdir()
    np.save(tmp_path / "prepared" / "images.npy", data.images)
    write_store(tmp_path / "prepared", data.manifest, replace(data.header, images=len(data.images)))
    write_table(tmp_path / "split.csv", table)
    monkeypatch.chdir(tmp_path)
    paths = {"prepared": "prepared", "split": "split.csv", "metrics": "m.json", "tables": "t", "plots": "p"}
    monkeypatch.setattr(
        sys, "argv", ["audit", *(word for pair in paths.items() for word in (f"--{pair[0]}", pair[1]))]
    )
    monkeypatch.setattr(audit, "args", audit.parse(), raising=False)
    if on_leak == "fail":
        with pytest.raises(UserError, match=r"split\.csv: leaking: .* are also in train; .*audit\.on_leak: warn"):
            audit.main()
    else:
        audit.main()
    assert "audit: leaking\n  - " in capsys.readouterr().out
    metrics = read_metrics(tmp_path / "m.json")
    assert metrics["verdict"] == "leaking"
    assert metrics["nn_gap"] == pytest.approx(
        metrics["nn_accuracy"] - metrics["nn_accuracy_without_own_patient"], abs=2e-4
    )
    assert list(read_table(tmp_path / "t" / "suspects.csv")) == [
        "suspect",
        "kind",
        "id",
        "split",
        "label",
        "patient",
    ]
    assert {"kind", "similarity", "id", "other_id"} <= set(read_table(tmp_path / "t" / "pairs.csv"))
    assert len(pd.read_csv(tmp_path / "p" / "closeness.csv")) == 101
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["closeness.csv"]
    assert (tmp_path / "t" / "pairs.png").is_file() is pictures

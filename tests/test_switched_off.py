"""A cell that a backbone's block switches off writes empty outs, quickly; the report shows nothing of it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from medrobust.core.records import read_metrics, read_table, write_empty, write_json
from medrobust.report.collect import Folders
from medrobust.report.run import Run
from medrobust.report.tables.detection import detection_tables, read_detection
from medrobust.report.tables.explanations import explanation_text, read_explanations
from tests.params import preset, save

ROOT = Path(__file__).resolve().parent.parent
#: Runs a script, and fails if it imports torch.
CODE = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); "
CODE += "assert 'torch' not in sys.modules"


def node(stage: str, **item: str) -> dict[str, Any]:
    """A cell of dvc.yaml."""
    text = (ROOT / "dvc.yaml").read_text().replace("${key}", "-".join(item.values()))
    for key, value in {**{f"item.{name}": value for name, value in item.items()}, "explain.suite": "pgd"}.items():
        text = text.replace(f"${{{key}}}", value)
    found: dict[str, Any] = yaml.safe_load(text)["stages"][stage]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with parameters in which nothing is explained or guarded, and nothing else."""
    content = preset("smoke")
    save(tmp_path, content)
    settings = tmp_path / "data" / "resolved" / "settings" / "resnet10t"
    write_json(settings / "detect.json", {"regimes": []})
    write_json(settings / "explain.json", {"explain": False})
    write_json(settings / "corrupt.json", {"corrupt": False})
    return tmp_path


@pytest.mark.parametrize(
    ("stage", "item"),
    [
        ("detect", {"backbone": "resnet10t", "regime": "clean"}),
        ("detect", {"backbone": "resnet10t", "regime": "adv"}),
        ("explain", {"backbone": "resnet10t"}),
        ("corrupt", {"backbone": "resnet10t"}),
    ],
)
def test_a_cell_writes_every_out_without_torch_or_inputs(stage: str, item: dict[str, str], folder: Path) -> None:
    cell = node(stage, **item)
    _, script, *arguments = cell["cmd"].split()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", CODE, str(ROOT / script), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for kind in ("outs", "metrics", "plots"):
        for out in cell.get(kind, []):
            name, cached = (out, True) if isinstance(out, str) else (next(iter(out)), False)
            path = folder / name
            assert path.exists(), name
            if path.suffix == ".json":
                assert read_metrics(path) == {}
            elif path.suffix == ".parquet":
                assert len(read_table(path)) == 0
            else:  # git keeps no empty folder: after a clone DVC would run the cell again
                files = list(path.iterdir())
                assert [len(read_table(file)) for file in files] == ([] if cached else [0])


def test_the_report_shows_nothing_of_it_and_calls_nothing_missing(folder: Path) -> None:
    for kind, name in (("detect", "a-clean"), ("explain", "a-clean"), ("explain", "a-adv")):
        write_empty(folder / "metrics" / kind / f"{name}.json")
    folders = Folders(*(folder / name for name in ("prepared", "metrics", "plots", "tune", "models")))
    run = Run(["a"], [])
    read_detection(run, folders, [("a", "clean")])
    read_explanations(run, folder / "metrics", ["a"])
    assert (run.missing, run.detect, run.drawn, run.explain) == ([], {}, {}, {})
    assert detection_tables(run, 0.95) == []
    assert explanation_text(run) == []

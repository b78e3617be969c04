"""The tests pass whatever a team commits as params.yaml: a preset, or a file that DVC has written.

A test, or a module on import, can depend on params.yaml only by opening it. `conftest.py` fails whatever opens it
without the mark `live_params`, in every run and whatever the file has in it. Only tests here have the mark. They
make the same checks of the live file, of every preset and of a file that DVC has written.
"""

import sys
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from medrobust.core.params.schema import check_params, load_params
from medrobust.core.params.yaml_file import read_params
from tests.checkout import ROOT, copy_checkout
from tests.clones import run
from tests.params import preset
from tools import artifacts
from tools.preset import names, write

LIVE, REWRITTEN = "of the working tree", "written by DVC"
OVERRIDES = ["adv.eps=0.005", "seed=3"]


@pytest.fixture(params=[pytest.param(LIVE, marks=pytest.mark.live_params), *names(), REWRITTEN])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working tree, or a folder with params.yaml as `make preset` writes it, or as `-S` does after it."""
    if request.param == LIVE:
        return ROOT
    monkeypatch.chdir(tmp_path)
    write("default" if request.param == REWRITTEN else request.param, tmp_path / "params.yaml")
    if request.param == REWRITTEN:
        apply_overrides(tmp_path / "params.yaml", OVERRIDES)
    artifacts.write_artifacts(load_params())
    return tmp_path


def test_the_parameters_are_valid_and_those_of_the_default_preset_have_its_comments(folder: Path) -> None:
    """A team commits values of its own; what it may not do is to leave out a key."""
    path, default = folder / "params.yaml", ROOT / "presets" / "default.yaml"
    live = read_params(path)
    check_params(live, "params.yaml")
    assert live != preset() or path.read_bytes() == default.read_bytes()


def test_the_file_in_git_names_the_models_of_params(folder: Path) -> None:
    remedy = "params.yaml has other models: run `python -m tools.artifacts`"
    params = load_params(folder / "params.yaml")
    assert (folder / artifacts.FILE).read_text() == artifacts.render(params), remedy


def test_a_test_without_the_mark_cannot_read_the_live_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for path in ("params.yaml", ROOT / "params.yaml"):
        with pytest.raises(AssertionError, match="only tests marked `live_params`"):
            Path(path).read_text()
    assert (ROOT / "presets" / "default.yaml").read_text()


def test_only_tests_here_have_the_mark() -> None:
    marked = [path.name for path in (ROOT / "tests").rglob("test_*.py") if "live_params" in path.read_text()]
    assert marked == [Path(__file__).name]


@pytest.mark.slow
def test_the_suite_is_collected_and_the_tests_nearest_to_the_file_pass_with_other_parameters(
    tmp_path: Path,
) -> None:
    """Of dvc.yaml, params and `make repro`, under a preset that differs most, with values that DVC has written."""
    copy_checkout(tmp_path)
    run(tmp_path, sys.executable, "-m", "tools.preset", "smoke", "--force")
    apply_overrides(tmp_path / "params.yaml", OVERRIDES)

    def pytest_here(*options: str) -> str:
        return run(tmp_path, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options)

    collected = {line.partition("::")[0] for line in pytest_here("--collect-only").splitlines()}
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("tests/**/test_*.py")} <= collected
    quick = (
        "tests/test_pipeline.py",
        "tests/test_surrogates.py",
        "tests/core/params",
        "tests/tools/test_repro.py",
    )
    assert "passed" in pytest_here("-m", "not slow", *quick)

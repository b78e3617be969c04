"""The tests pass whatever a team commits as params.yaml: a preset, or a file that DVC has written."""

import sys
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from tests.checkout import ROOT, copy_checkout
from tests.clones import run
from tools.preset import names
from tools.replay import studies

REWRITTEN = "written by DVC"


def test_a_test_without_the_mark_cannot_read_the_live_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for path in ("params.yaml", ROOT / "params.yaml"):
        with pytest.raises(AssertionError, match="only tests marked `live_params`"):
            Path(path).read_text()
    assert (ROOT / "presets" / "default.yaml").read_text()


@pytest.mark.live_params
def test_a_test_with_the_mark_can_read_the_live_file() -> None:
    assert (ROOT / "params.yaml").read_text()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree without its results and its params."""
    folder = tmp_path_factory.mktemp("clone")
    copy_checkout(folder)
    return folder


#: The presets of studies differ from the others only in values, and each would take as long as the others.
OTHERS = [name for name in names() if name.removesuffix("-cpu") not in studies()]


def write_params(name: str, clone: Path) -> None:
    """Write params.yaml as `make preset` does, or as `dvc exp run -S` does after it."""
    preset = name if name in names() else "default"
    run(clone, sys.executable, "-m", "tools.preset", preset, "--force")
    if name == REWRITTEN:
        apply_overrides(clone / "params.yaml", ["adv.eps=0.005", "seed=3"])


def pytest_in(clone: Path, *options: str) -> str:
    """What pytest prints in the clone; it has to succeed."""
    return run(clone, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OTHERS, REWRITTEN])
def test_other_parameters_fail_no_test(name: str, clone: Path) -> None:
    """The tests that read params.yaml pass. No other test opens it: `conftest.py` fails one that does."""
    write_params(name, clone)
    files = [str(path) for path in (clone / "tests").rglob("test_*.py") if "mark.live_params" in path.read_text()]
    assert "3 passed" in pytest_in(clone, "-m", "live_params", *files)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smoke", "alzheimer", REWRITTEN])
def test_the_quick_tests_nearest_to_the_file_pass_with_other_parameters(name: str, clone: Path) -> None:
    """Of dvc.yaml, params and `make repro`. They and the test above stand for the whole suite.

    A test, or a module on import, can depend on params.yaml only by opening it. `conftest.py` fails whatever opens
    it without the mark, in every run and whatever the file has in it. So what passes here passes with any preset.
    """
    write_params(name, clone)
    if name == REWRITTEN:
        collected = {line.partition("::")[0] for line in pytest_in(clone, "--collect-only").splitlines()}
        assert {path.relative_to(clone).as_posix() for path in clone.glob("tests/**/test_*.py")} <= collected
    quick = (
        "tests/test_pipeline.py",
        "tests/test_surrogates.py",
        "tests/core/params",
        "tests/tools/test_repro.py",
    )
    assert "passed" in pytest_in(clone, "-m", "not slow", *quick)

"""Pseudonyms: keyed, in the order of appearance, with a secret that stays on this machine."""

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from medrobust.core.errors import UserError
from medrobust.data.pseudonyms import KEY_FILE, KEY_VARIABLE, pseudonyms

SECRET = "a secret of sixteen or more"


@pytest.fixture(autouse=True)
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone without a secret."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_hash_is_that_of_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    """`printf 'Doe^Jane' | openssl dgst -sha256 -hmac 'a secret of sixteen or more'`."""
    monkeypatch.setenv(KEY_VARIABLE, f" {SECRET}\n")
    assert pseudonyms(["Doe^Jane"]) == ["P000001-d815f4f09ff4"]


def test_numbers_follow_the_first_appearance(monkeypatch: pytest.MonkeyPatch) -> None:
    patients = ["b", "a", "", "b", "c", "ä", "A", "b "]
    orders = []
    for secret in (SECRET, "another secret of another clone"):
        monkeypatch.setenv(KEY_VARIABLE, secret)
        found = pseudonyms(patients)
        assert [name[:7] for name in found] == [
            "P000001",
            "P000002",
            "",
            "P000001",
            *(f"P00000{n}" for n in range(3, 7)),
        ]
        orders.append(sorted(range(len(found)), key=lambda row: found[row]))
    assert orders[0] == orders[1]


def test_ids_cannot_be_tested_without_the_secret() -> None:
    """Whoever knows that ids have four digits finds none of them, as they would in 10,000 plain hashes."""
    numbers = [f"{number:04d}" for number in range(10_000)]
    hashes = {name.partition("-")[2] for name in pseudonyms(numbers)}
    assert len(hashes) == len(numbers)
    assert not hashes & {hashlib.sha256(number.encode()).hexdigest()[:12] for number in numbers}


def test_a_clone_makes_one_secret_for_itself(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = pseudonyms(["x"])
    path = clone / KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}\n", path.read_text())
    assert f"{path} is new; it holds the secret" in capsys.readouterr().out
    assert path.read_text().strip() not in capsys.readouterr().out
    assert pseudonyms(["x"]) == first
    assert not capsys.readouterr().out
    assert [file.name for file in clone.iterdir()] == [KEY_FILE], "no temporary file stays"
    path.unlink()
    assert pseudonyms(["x"]) != first


def test_no_secret_is_made_without_need(clone: Path) -> None:
    assert pseudonyms(["", ""]) == ["", ""]
    assert pseudonyms([]) == []
    assert not list(clone.iterdir())


def test_an_experiment_uses_the_secret_of_its_clone(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = clone / ".dvc" / "tmp" / "exps" / "standalone" / "tmp1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    first = pseudonyms(["x"])
    monkeypatch.chdir(clone)
    assert pseudonyms(["x"]) == first
    assert (clone / KEY_FILE).exists()
    assert not list(copy.iterdir())


def test_the_variable_comes_before_the_file(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pseudonyms(["x"])
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    assert pseudonyms(["x"]) != first
    (clone / KEY_FILE).write_text(f"{SECRET}\n")
    found = pseudonyms(["x"])
    monkeypatch.delenv(KEY_VARIABLE)
    assert pseudonyms(["x"]) == found, "the file and the variable hold the same text"


@pytest.mark.parametrize("text", ["", " \n", "short", "fifteen letters", "x" * 15 + " " * 40])
def test_a_secret_that_could_be_guessed_is_refused(
    text: str, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clone / KEY_FILE).write_text(text)
    (clone / KEY_FILE).chmod(0o600)
    with pytest.raises(
        UserError, match=rf"{KEY_FILE}: the secret has \d+ characters\. Use at least 16 random ones"
    ):
        pseudonyms(["x"])
    monkeypatch.setenv(KEY_VARIABLE, text)
    with pytest.raises(UserError, match=rf"{KEY_VARIABLE}: the secret has \d+ characters"):
        pseudonyms(["x"])


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o666])
def test_a_secret_that_others_can_read_is_refused(mode: int, clone: Path) -> None:
    (clone / KEY_FILE).write_text(SECRET)
    (clone / KEY_FILE).chmod(mode)
    with pytest.raises(UserError, match=rf"{KEY_FILE}: is readable by others\. Run chmod 600 {KEY_FILE}"):
        pseudonyms(["x"])


@pytest.mark.parametrize("kind", ["folder", "bytes", "link"])
def test_a_file_that_cannot_be_used_is_reported(kind: str, clone: Path) -> None:
    path = clone / KEY_FILE
    if kind == "folder":
        path.mkdir()
    elif kind == "bytes":
        path.write_bytes(b"\xff" * 40)
    else:
        path.symlink_to(clone / "nowhere" / "key")
    with pytest.raises(UserError, match=rf"{KEY_FILE}: cannot be used \(.*set {KEY_VARIABLE}"):
        pseudonyms(["x"])


def test_git_ignores_the_secret() -> None:
    top = Path(__file__).parents[2]
    for name in (KEY_FILE, f"{KEY_FILE}.a1b2"):  # while it is written, it has another name
        ignored = subprocess.run(["git", "check-ignore", "-q", name], cwd=top, check=False)
        assert ignored.returncode == 0, name

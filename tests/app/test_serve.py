"""What `medrobust app` refuses before it serves, and what it leaves."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from medrobust.app import serve
from medrobust.cli.group import commands
from tests.app.published import publish


def refused(*arguments: str) -> str:
    """The message with which the command ends."""
    result = CliRunner().invoke(commands, ["app", *arguments])
    assert result.exit_code == 1, result.output
    return result.output.strip()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_port_in_use_is_one_message(folder: Path, temporary: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        remedy = "Use another port (`--port 0` is any free one), or end the program that uses it"
        expected = f"Error: port {port}: cannot be used: Address already in use. {remedy}"
        assert refused(str(folder), "--port", str(port)) == expected
    assert list(temporary.iterdir()) == []


def test_a_damaged_folder_is_one_message_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    damaged = publish(tmp_path / "model")
    with (damaged / "model.safetensors").open("ab") as file:
        file.write(b"x")
    message = refused(str(damaged), "--port", "0")
    expected = f"Error: {damaged}/model.safetensors: is not the file that card.json describes. Run `dvc checkout`"
    assert message == expected
    assert list(temporary.iterdir()) == []


def test_a_folder_without_a_published_model_is_one_message(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused("nowhere", "--port", "0").startswith("Error: nowhere")
    assert refused("--port", "0").startswith("Error: models: holds no published model. Name the folder of a model")
    unpublished = publish(tmp_path / "models" / "b" / "clean")
    (unpublished / "use.json").unlink()
    assert "does not say how files become its input" in refused(str(unpublished), "--port", "0")


def test_all_published_models_are_the_default(tmp_path: Path) -> None:
    for name in ("b/clean", "a/adv", "a/other"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("b/clean", "a/adv"):
        (tmp_path / name / "use.json").touch()
    assert serve.published_models(tmp_path) == [tmp_path / "a" / "adv", tmp_path / "b" / "clean"]


def test_the_missing_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    expected = "Error: medrobust app: gradio is not installed. Run: pip install medrobust[app]"
    assert refused(str(folder)) == expected


def test_only_this_user_reads_uploads_and_those_of_a_killed_process_are_deleted(temporary: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    killed = temporary / f".medrobust-app-abc.{ended.pid}.tmp"
    running = temporary / f".medrobust-app-abc.{os.getppid()}.tmp"
    for folder in (killed, running):
        folder.mkdir()
        (folder / "scan.png").touch()
    with serve.upload_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.name for path in temporary.iterdir()} == {running.name, folder.name}
        (folder / "scan.png").touch()
    assert [path.name for path in temporary.iterdir()] == [running.name]


def test_it_listens_on_the_loopback_address_only() -> None:
    with serve.free_port(0) as listener:
        address, port = listener.getsockname()
        assert address == "127.0.0.1"
        with socket.create_connection((address, port), timeout=5):
            pass

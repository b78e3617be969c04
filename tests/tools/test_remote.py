"""Which remotes a workflow may use: asked for a file that dvc.lock names, not only for their name."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tools.remote import Probe, probe


def run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of two stages that has run, in a repository without a remote."""
    folder = tmp_path_factory.mktemp("pipeline") / "repository"
    folder.mkdir()
    stages = [f"  {name}:\n    cmd: echo {name} > {name}\n    outs: [{name}]\n" for name in ("one", "two")]
    (folder / "dvc.yaml").write_text("stages:\n" + "".join(stages))
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "repro", "-q"]):
        run(folder, *command)
    return folder


@pytest.fixture
def repository(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "repository")


def test_no_remote_at_all(repository: Path) -> None:
    assert probe(repository) == Probe("unusable", "DVC has no default remote")
    run(repository, "dvc", "remote", "add", "store", "/somewhere")
    assert probe(repository).because == "DVC has no default remote", "a remote that nothing uses"


def test_a_folder_that_is_on_another_machine(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    run(repository, "dvc", "remote", "add", "--default", "store", str(folder))
    found = probe(repository)
    assert found.state == "unusable"
    assert found.because == f"the remote store is the folder {folder}, which does not exist here"
    assert "mode=smoke\n" in found.lines()


def test_an_empty_folder_a_pushed_one_and_one_with_a_gap(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    run(repository, "dvc", "remote", "add", "--default", "store", str(folder))
    assert probe(repository) == Probe("empty", "the remote store has nothing that dvc.lock names; run `dvc push`")
    run(repository, "dvc", "push")
    assert probe(repository) == Probe("ready")
    assert probe(repository).lines() == "state=ready\nmode=full\nbecause=\nnot_pushed=0\n"
    next(path for path in (folder / "files" / "md5").rglob("*") if path.is_file()).unlink()
    assert probe(repository) == Probe("ready", missing=1)


def test_s3_without_keys(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):  # what the workflow sets without secrets
        monkeypatch.setenv(name, "")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(repository / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(repository / "none"))
    run(repository, "dvc", "remote", "add", "--default", "store", "s3://bucket/path")
    found = probe(repository)
    assert found.state == "unusable"
    assert "the remote store cannot be used here: " in found.because
    assert "credentials" in found.because
    assert "\n" not in found.because


def test_a_bucket_that_does_not_exist_and_an_empty_one(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto, boto3 = pytest.importorskip("moto.server"), pytest.importorskip("boto3")
    pytest.importorskip("dvc_s3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    # The servers of all tests in a process share their buckets, so this name is used nowhere else.
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        run(repository, "dvc", "remote", "add", "--default", "store", "s3://only-here/path")
        run(repository, "dvc", "remote", "modify", "store", "endpointurl", endpoint)
        found = probe(repository)
        assert found.state == "unusable"
        assert "NoSuchBucket" in found.because
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="only-here")
        assert probe(repository).state == "empty"
    finally:
        server.stop()


def test_an_unknown_kind_of_remote(repository: Path) -> None:
    run(repository, "dvc", "remote", "add", "--default", "store", "gs://bucket/path")
    found = probe(repository)
    assert found.state == "unusable"
    assert found.because.startswith("the remote store cannot be used here: ")

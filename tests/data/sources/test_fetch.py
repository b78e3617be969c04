"""Downloads from a local server that interrupts them, changes its file, or announces more than it sends."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.data.prepare import download
from medrobust.data.sources import fetch

CONTENT = bytes(range(256)) * 400


class Server(http.server.ThreadingHTTPServer):
    """Serves one file; `cuts` are the numbers of bytes after which the next responses are interrupted."""

    content, tag, ranges, cuts = CONTENT, '"one"', True, list[int]()
    ranges_requested: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        site = self.server
        wanted = self.headers.get("Range", "")
        site.ranges_requested.append(wanted)
        if "missing" in self.path:
            self.send_error(404)
            return
        start = 0
        if wanted and site.ranges and self.headers.get("If-Range") in (None, site.tag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start and start >= len(site.content):
            self.send_error(416)
            return
        body = site.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if site.tag:
            self.send_header("ETag", site.tag)
        self.end_headers()
        self.wfile.write(body[: site.cuts.pop(0)] if site.cuts else body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server; partial downloads are stored in a folder of the test."""
    monkeypatch.setattr(fetch, "WORK", tmp_path / "work")
    monkeypatch.setattr(fetch, "CHUNK", 1000)
    with Server(("127.0.0.1", 0), Handler) as site:
        site.ranges_requested, site.cuts = [], []
        threading.Thread(target=site.serve_forever, args=(0.01,), daemon=True).start()
        yield site
        site.shutdown()


def url(server: Server, name: str = "a.zip") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/{name}"


def test_a_whole_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    fetch.download_file(url(server), tmp_path / "a.zip", hashlib.md5(CONTENT).hexdigest())
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.ranges_requested == [""]
    assert list((tmp_path / "work" / "downloads").iterdir()) == []


def test_an_interrupted_download_is_resumed(server: Server, tmp_path: Path) -> None:
    server.cuts = [50_000, 20_000]
    fetch.download_file(url(server), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.ranges_requested == ["", "bytes=50000-", "bytes=70000-"]


def test_a_download_of_a_killed_run_is_resumed_by_the_next(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    server.cuts = [60_000]
    with pytest.raises(UserError, match=r"interrupted after 60000 bytes.*Run the stage again to resume"):
        fetch.download_file(url(server), tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists(), "a partial file is never used as the complete one"
    fetch.download_file(url(server), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.ranges_requested[1] == "bytes=60000-"


@pytest.mark.parametrize("change", ["another file", "no tag", "no ranges"])
def test_bytes_of_another_file_are_not_appended(change: str, server: Server, tmp_path: Path) -> None:
    server.cuts = [60_000]
    if change == "no tag":
        server.tag = ""
    if change == "no ranges":
        server.ranges = False
    if change == "another file":
        original = fetch._resume

        def swapped(address: str, part: Path) -> None:
            try:
                original(address, part)
            finally:
                server.content, server.tag = CONTENT[::-1], '"two"'

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fetch, "_resume", swapped)
            fetch.download_file(url(server), tmp_path / "a.zip")
    else:
        fetch.download_file(url(server), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == server.content


def test_a_part_longer_than_the_file_is_discarded(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    server.cuts = [60_000]
    with pytest.raises(UserError, match="interrupted"):
        fetch.download_file(url(server), tmp_path / "a.zip")
    server.content = CONTENT[:1000]
    monkeypatch.setattr(fetch, "ATTEMPTS", 2)
    fetch.download_file(url(server), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[:1000]


def test_a_wrong_md5_is_refused_and_the_download_starts_anew(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its md5 is \w+, but 00 is published"):
        fetch.download_file(url(server), tmp_path / "a.zip", "00")
    assert not (tmp_path / "a.zip").exists()
    fetch.download_file(url(server), tmp_path / "a.zip")
    assert server.ranges_requested == ["", ""]


def test_an_http_error_is_reported(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.zip: the server returned status 404"):
        fetch.download_file(url(server, "missing.zip"), tmp_path / "a.zip")


def test_the_path_may_be_a_url(server: Server, params: Any, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    download(params(path=url(server, "my%20data.zip"), sha256=sha256), tmp_path / "raw", seed=0)
    assert (tmp_path / "raw" / "my data.zip").read_bytes() == CONTENT
    with pytest.raises(UserError, match=r"data\.sha256 is 00"):
        download(params(path=url(server), sha256="00"), tmp_path / "other", seed=0)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["..", "%2e%2e", "a/..%2f..%2fb.zip", ""])
def test_a_url_cannot_choose_the_target_path(name: str, server: Server, params: Any, tmp_path: Path) -> None:
    download(params(path=url(server, name)), tmp_path / "raw", seed=0)
    assert {path.name for path in (tmp_path / "raw").iterdir()} <= {"source.json", "download", "b.zip"}
    assert len(list((tmp_path / "raw").iterdir())) == 2

# SPDX-License-Identifier: Apache-2.0
"""Downloads from a real server on loopback: whole, broken off, refused, wrong."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from septet.errors import ChecksumMismatch, FetchError, Unreachable
from septet.workloads.fetch import fetch

CONTENT = bytes(range(256)) * 2_000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Files(ThreadingHTTPServer):
    """Serves CONTENT at /file; breaks off after `cut` bytes as long as `cuts` lasts."""

    cut = 100_000
    cuts = 0
    ranges = True
    asked: list[str | None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file"


class Handler(BaseHTTPRequestHandler):
    server: Files

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path != "/file":
            self.send_error(404)
            return
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if begin >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cuts > 0:
            self.server.cuts -= 1
            body = body[: self.server.cut]
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # noqa: A002
        """Tests print nothing."""


@pytest.fixture
def files() -> Iterator[Files]:
    with Files(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_is_fetched_once(files: Files, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    to = tmp_path / "deep" / "file"
    for _ in range(2):
        assert fetch(files.url, to, MD5, on_bytes=lambda done, of: told.append((done, of))) == to
    assert to.read_bytes() == CONTENT
    assert files.asked == [None]
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_a_break_is_resumed_within_one_call(files: Files, tmp_path: Path) -> None:
    files.cuts = 2
    fetch(files.url, tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert files.asked == [None, "bytes=100000-", "bytes=200000-"]


def test_a_break_is_resumed_by_the_next_call(files: Files, tmp_path: Path) -> None:
    files.cuts = 1
    with pytest.raises(Unreachable, match="broke off after 100,000 of 512,000 bytes"):
        fetch(files.url, tmp_path / "file", MD5, tries=1)
    assert not (tmp_path / "file").exists()
    fetch(files.url, tmp_path / "file", MD5, tries=1)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert files.asked[-1] == "bytes=100000-"


def test_a_server_that_cannot_resume_sends_it_all_again(files: Files, tmp_path: Path) -> None:
    files.cuts, files.ranges = 1, False
    fetch(files.url, tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_that_was_whole_already_is_taken(files: Files, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch(files.url, tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_wrong_bytes_are_thrown_away(files: Files, tmp_path: Path) -> None:
    with pytest.raises(ChecksumMismatch, match=f"MD5 is {MD5}, published as 0000"):
        fetch(files.url, tmp_path / "file", "0" * 32)
    assert {path.name for path in tmp_path.iterdir()} == {"file.lock"}


def test_what_is_not_there_is_not_asked_again(files: Files, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="the server answers 404"):
        fetch(files.url.replace("/file", "/none"), tmp_path / "file", MD5)
    assert files.asked == [None]


def test_an_address_without_a_server_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9/file: .*refused") as caught:
        fetch("http://127.0.0.1:9/file", tmp_path / "file", MD5, tries=1)
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_told(files: Files, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(FetchError, match="taken"):
        fetch(files.url, tmp_path / "taken" / "file", MD5)


def test_many_at_once_fetch_once(files: Files, tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=fetch, args=(files.url, tmp_path / "file", MD5), daemon=True) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert files.asked == [None]

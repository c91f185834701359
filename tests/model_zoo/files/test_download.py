"""Downloads: whole or not there, never believed before size and sha256 agree, not needed with a mirror."""

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from attacks.errors import InputError
from model_zoo.files import download
from model_zoo.files.download import fetch
from model_zoo.files.locks import CLAIMS

CONTENT = bytes(range(256)) * 40
ROOT = Path(__file__).resolve().parents[3]
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """A server with one file.

    breaks: after how many bytes each answer ends, while there are any numbers left. pause: in seconds, before the file.
    falls_silent: after how many bytes each answer stops, its connection open. tells_length: before it sends the file.
    """

    url: str = ""
    content: bytes = CONTENT
    breaks: list[int] = field(default_factory=list)
    asked: int = 0
    status: int = 200
    pause: float = 0.0
    falls_silent: int = 0
    tells_length: bool = True


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "TIMEOUT_S", 5)
    state, over = Site(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked += 1
            body = state.content
            self.send_response(state.status)
            if state.tells_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            time.sleep(state.pause)
            if state.falls_silent:
                self.wfile.write(body[: state.falls_silent])
                over.wait()
            else:
                self.wfile.write(body[: state.breaks.pop(0)] if state.breaks else body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/weights.pt"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_comes_whole_and_leaves_nothing_beside_it(site: Site, tmp_path: Path) -> None:
    fetch(site.url, tmp_path / "below/weights.pt", sha256=SHA256, size=len(CONTENT))
    assert (tmp_path / "below/weights.pt").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "below").iterdir() if path.name != CLAIMS] == ["weights.pt"]


def names(folder: Path) -> list[str]:
    """What is in a folder, but for the file of its locks."""
    return sorted(path.name for path in folder.iterdir() if path.name != CLAIMS)


def test_a_transfer_that_breaks_is_begun_again(site: Site, tmp_path: Path) -> None:
    site.breaks = [1000, 3000]
    fetch(site.url, tmp_path / "weights.pt", sha256=SHA256)
    assert (tmp_path / "weights.pt").read_bytes() == CONTENT
    assert site.asked == 3


def test_what_a_killed_process_left_is_replaced(site: Site, tmp_path: Path) -> None:
    (tmp_path / "weights.pt.part").write_bytes(b"?" * 2 * len(CONTENT))
    fetch(site.url, tmp_path / "weights.pt", sha256=SHA256, size=len(CONTENT))
    assert (tmp_path / "weights.pt").read_bytes() == CONTENT
    assert names(tmp_path) == ["weights.pt"]


def test_a_transfer_that_breaks_for_ever_is_one_line_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.breaks = [10] * 99
    with pytest.raises(InputError, match=r"10 bytes read.*--mirror-dir") as caught:
        fetch(site.url, tmp_path / "weights.pt", sha256=SHA256)
    assert "\n" not in str(caught.value)
    assert site.asked == download.TRIES
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"!", b"<html>log in</html>", CONTENT + b"more"])
def test_another_file_than_expected_is_not_kept(site: Site, tmp_path: Path, content: bytes) -> None:
    site.content = content
    with pytest.raises(InputError, match=r"expected \d+ bytes"):
        fetch(site.url, tmp_path / "weights.pt", sha256=SHA256, size=len(CONTENT))
    assert names(tmp_path) == []


def test_a_server_that_sends_without_end_fills_no_disk(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.content, largest = CONTENT * 100, 0
    monkeypatch.setattr(download, "BLOCK", 1000)
    write = download._Limited.write

    def watch(self: download._Limited, block: bytes) -> None:
        nonlocal largest
        try:
            write(self, block)
        finally:
            largest = max(largest, self.file.tell())

    monkeypatch.setattr(download._Limited, "write", watch)
    with pytest.raises(InputError, match="got more"):
        fetch(site.url, tmp_path / "weights.pt", sha256=SHA256, size=len(CONTENT))
    assert len(CONTENT) - 1000 <= largest <= len(CONTENT)
    assert names(tmp_path) == []


@pytest.mark.parametrize(("status", "times"), [(404, 1), (503, download.TRIES)])
def test_a_refusal_of_the_server_is_one_line(site: Site, tmp_path: Path, status: int, times: int) -> None:
    site.status = status
    with pytest.raises(InputError, match=f"{status}") as caught:
        fetch(site.url, tmp_path / "weights.pt", sha256=SHA256)
    assert "\n" not in str(caught.value)
    assert site.asked == times


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/weights.pt", ""])
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match="expected an http or https address"):
        fetch(url, tmp_path / "weights.pt", sha256=SHA256)


def test_a_mirror_serves_without_a_network_and_is_checked_as_well(site: Site, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/weights.pt").write_bytes(CONTENT)
    fetch("https://nowhere.invalid/weights.pt", tmp_path / "weights.pt", sha256=SHA256, mirror=tmp_path / "mirror")
    assert (tmp_path / "weights.pt").read_bytes() == CONTENT
    (tmp_path / "mirror/weights.pt").write_bytes(CONTENT[1:])
    with pytest.raises(InputError, match=r"mirror/weights\.pt: expected"):
        fetch(site.url, tmp_path / "other/weights.pt", sha256=SHA256, mirror=tmp_path / "mirror")
    assert site.asked == 0


def test_another_file_of_that_name_is_replaced(site: Site, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"other")
    fetch(site.url, tmp_path / "weights.pt", sha256=SHA256)
    assert (tmp_path / "weights.pt").read_bytes() == CONTENT


@pytest.mark.skipif(find_spec("fcntl") is None, reason="this system has no file locks")
def test_of_several_processes_one_brings_the_file(site: Site, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from model_zoo.files.download import fetch; "
        "fetch(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])"
    )
    site.pause = 2.0
    words = [sys.executable, "-c", program, site.url, str(tmp_path / "weights.pt"), SHA256]
    processes = [subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    told = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(told)[0] == ""
    assert all("waiting for another process" in line for line in sorted(told)[1:])
    assert (tmp_path / "weights.pt").read_bytes() == CONTENT
    assert site.asked == 1


def test_a_server_that_falls_silent_is_one_line(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.3)
    site.falls_silent = 1000
    with pytest.raises(InputError, match="timed out"):
        fetch(site.url, tmp_path / "weights.pt", sha256=SHA256)
    assert site.asked == download.TRIES
    assert names(tmp_path) == []


def test_what_a_server_that_tells_no_length_broke_off_is_not_kept(site: Site, tmp_path: Path) -> None:
    site.tells_length, site.breaks = False, [1000]
    with pytest.raises(InputError, match="got 1000 bytes of"):
        fetch(site.url, tmp_path / "weights.pt", sha256=SHA256, size=len(CONTENT))
    assert names(tmp_path) == []


def test_a_file_is_readable_by_whom_the_umask_lets(site: Site, tmp_path: Path) -> None:
    fetch(site.url, tmp_path / "weights.pt", sha256=SHA256)
    (tmp_path / "plain").touch()
    assert (tmp_path / "weights.pt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_that_takes_no_file_is_one_line(site: Site, tmp_path: Path) -> None:
    (tmp_path / "weights.pt.part").mkdir()  # also to whom permissions say nothing
    with pytest.raises(InputError, match=r"weights\.pt: the download failed.*--mirror-dir") as caught:
        fetch(site.url, tmp_path / "weights.pt", sha256=SHA256)
    assert "\n" not in str(caught.value)


def test_where_nobody_answers_a_line_says_what_to_do(site: Site, tmp_path: Path) -> None:
    address = "http://127.0.0.1:1/weights.pt"
    with pytest.raises(InputError, match=f"{address}: the download failed.*--mirror-dir") as caught:
        fetch(address, tmp_path / "weights.pt", sha256=SHA256)
    assert "\n" not in str(caught.value)
    assert site.asked == 0


@pytest.mark.parametrize("address", ["http://[bad/weights.pt", "http:///weights.pt"])
def test_an_address_that_is_none_is_one_line(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected an address"):
        fetch(address, tmp_path / "weights.pt", sha256=SHA256)

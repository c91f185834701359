"""Files from elsewhere: a mirror folder first, then the network; nothing is believed before size and sha256 agree."""

import http.client
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from attacks.errors import InputError
from model_zoo.files.atomic import sha256_of
from model_zoo.files.locks import claim

TIMEOUT_S = 30
BLOCK = 1 << 20
TRIES = 5
"""How often a file is asked for whose transfer breaks off."""


def fetch(url: str, path: Path, *, sha256: str, size: int = 0, mirror: Path | None = None) -> None:
    """Put a file at `path`, all or nothing; of several processes that want it, one brings it, and the others wait.

    Where a file system has no locks they all bring it, and one may fail.

    Args:
        url: http or https.
        sha256: in hex; size: in bytes, 0 where it is not known. Never more than `size` bytes are written.
        mirror: a folder that has files of the same name; where it has this one, the network is not asked.

    Raises: InputError where there is no such file, or another one than expected.
    """
    for wait in (False, True):
        with claim(path.parent, path.name, wait=wait) as is_ours:
            if is_ours:
                if not (path.is_file() and sha256_of(path) == sha256.lower()):
                    _bring(url, path, sha256=sha256.lower(), size=size, mirror=mirror)
                return
        print(f"waiting for another process, which is downloading {path}", file=sys.stderr)


def _bring(url: str, path: Path, *, sha256: str, size: int, mirror: Path | None) -> None:
    part, source = path.with_name(path.name + ".part"), url
    try:
        if mirror is not None and (mirror / path.name).is_file():
            source = str(mirror / path.name)
            shutil.copyfile(source, part)
        else:
            _download(url, part, size)
        got = part.stat().st_size, sha256_of(part)
        if got != (size or got[0], sha256):
            expected = f"{size} bytes of" if size else ""
            raise InputError(
                f"{source}: expected {expected} sha256 {sha256}, got {got[0]} bytes of {got[1]}; nothing was kept: "
                "the file there is another one, or was damaged on the way"
            )
        part.replace(path)
    finally:
        with suppress(OSError):  # a folder that may not be written to has none
            part.unlink()


def _download(url: str, part: Path, size: int) -> None:
    """Write what a server sends to PART. Raises: InputError where it does not come to its end."""
    from pooch import HTTPDownloader  # it imports a progress bar that warns in notebooks

    if not url.startswith(("https://", "http://")):
        raise InputError(f"{part.stem}: expected an http or https address, got {url!r}; mend the entry")
    answers: list[Any] = []  # pooch closes none that breaks off
    hooks = {"response": lambda answer, **_: answers.append(answer)}
    download = HTTPDownloader(chunk_size=BLOCK, timeout=TIMEOUT_S, headers={"Accept-Encoding": "identity"}, hooks=hooks)
    for _ in range(TRIES):
        try:
            with part.open("wb") as file:
                download(url, _Limited(file, url, size), None)
            return
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"expected an address of a file, got {url!r}: {error}; mend the entry") from None
        except OSError as error:  # which the exceptions of requests are, too
            reason = " ".join(str(error).split()) or type(error).__name__
            answer = getattr(error, "response", None)
            if answer is not None and answer.status_code < http.client.INTERNAL_SERVER_ERROR:
                break
        finally:
            while answers:
                answers.pop().close()
    raise InputError(
        f"{url}: the download failed ({reason}); try again, or put the file into a folder and name it by --mirror-dir"
    )


@dataclass(frozen=True)
class _Limited:
    """A file that takes no more than `size` bytes, 0 for any number, from a server."""

    file: IO[bytes]
    url: str
    size: int

    def write(self, block: bytes) -> None:
        if self.size and self.file.tell() + len(block) > self.size:
            raise InputError(f"{self.url}: expected {self.size} bytes, got more; mend the entry")
        self.file.write(block)

    def flush(self) -> None:
        self.file.flush()

"""Files from elsewhere: a mirror folder first, then the network; nothing is believed before size and sha256 agree."""

import http.client
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

from attacks.errors import InputError
from model_zoo.files.atomic import sha256_of
from model_zoo.files.locks import claim

TIMEOUT_S = 30
BLOCK = 1 << 20
TRIES = 5
"""How often a broken transfer is taken up again where it broke."""


def fetch(url: str, path: Path, *, sha256: str, size: int = 0, mirror: Path | None = None) -> None:
    """Put a file at `path`, all or nothing; of several processes that want it, one brings it, and the others wait.

    Where a file system has no locks they all bring it, and one may fail.

    Args:
        url: http or https. What a transfer that broke off has left, in PATH.part, is continued.
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
    part = path.with_name(path.name + ".part")
    goes_on = part.exists()
    if mirror is not None and (mirror / path.name).is_file():
        shutil.copyfile(mirror / path.name, part)
        source = str(mirror / path.name)
    else:
        if not url.startswith(("https://", "http://")):
            raise InputError(f"{path.name}: expected an http or https address, got {url!r}; mend the entry")
        _transfer(url, part, size)
        source = url
    got = part.stat().st_size, sha256_of(part)
    if got == (size or got[0], sha256):
        part.replace(path)
        return
    part.unlink()
    if goes_on:  # behind what may have been the beginning of another file
        _bring(url, path, sha256=sha256, size=size, mirror=mirror)
        return
    expected = f"{size} bytes of" if size else ""
    raise InputError(
        f"{source}: expected {expected} sha256 {sha256}, got {got[0]} bytes of {got[1]}; nothing was kept: "
        "the file there is another one, or was damaged on the way"
    )


def _transfer(url: str, part: Path, size: int) -> None:
    """Bring PART to its end, from where it is."""
    reason = ""
    for _ in range(TRIES):
        start = part.stat().st_size if part.exists() else 0
        if size and start >= size:
            return
        try:
            request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                continues = start > 0 and answer.status == http.client.PARTIAL_CONTENT
                _append(answer, part, at=start if continues else 0, size=size)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:  # all of it was there
                return
            reason = f"the server answered {error.code}"
            if error.code < http.client.INTERNAL_SERVER_ERROR:
                break
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"expected an address of a file, got {url!r}: {error}; mend the entry") from None
        except (OSError, http.client.HTTPException) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
    raise InputError(
        f"{url}: the download failed ({reason}); what came is kept in {part}: try again, or put the file into a folder "
        "and name it by --mirror-dir"
    )


def _append(answer: http.client.HTTPResponse, part: Path, *, at: int, size: int) -> None:
    """Write what a server answers behind the first `at` bytes. Raises: OSError where it ends early or never."""
    with part.open("r+b" if at else "wb") as file:
        file.seek(at)
        file.truncate()
        while block := answer.read1(BLOCK):  # as it comes: what breaks off is kept
            file.write(block)
            if size and file.tell() > size:
                file.truncate(size)
                raise InputError(f"{answer.url}: expected {size} bytes, got more; mend the entry")
        tells_its_end = answer.chunked or answer.length is not None
        missing = (answer.length or 0) if tells_its_end else size - file.tell()
    if missing > 0:
        raise OSError(f"it ended {missing} bytes early")

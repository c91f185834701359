"""Several processes on one folder. The kernel lets go of a lock when its process ends, however it ends.

No clock is asked, so none can mislead, and nothing is left to clean up after a kill. Where a file system has no locks,
nothing is locked: two sweeps then compute some chunks twice, to the same verdicts, and of two downloads of one file one
may fail. On a network file system the locks of a machine that lost its power stay until the server hears of it.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

from attacks.errors import InputError

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

IN_USE, CLAIMS = ".in-use.lock", ".claims.lock"
SHARED = 0o666
"""A lock's permissions, as far as its folder has them: whoever may write there may lock."""

NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


@contextmanager
def in_use(root: Path) -> Iterator[None]:
    """Others may use the folder as well, but nobody clears it up meanwhile."""
    with _opened(root / IN_USE) as file:
        _lock(lambda: fcntl.flock(file, fcntl.LOCK_SH))
        yield


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Nobody else uses the folder. Raises: InputError where somebody does."""
    with _opened(root / IN_USE) as file:
        if not _lock(lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)):
            raise InputError(f"{root}: expected a folder that no sweep is using, got one in use; wait until it is done")
        yield


@contextmanager
def claim(root: Path, *pieces: str, wait: bool) -> Iterator[bool]:
    """Keep some pieces of work to this process, all of them or none.

    At most one claim at a time in a process: closing the file lets go of all that the process holds there.

    Args:
        pieces: of each the same words in every process that wants it.
        wait: until whoever has one is done, or dead.

    Yields: whether they are ours; they are, too, where the folder may not be written to.
    """
    places = {int.from_bytes(hashlib.sha256(piece.encode()).digest()[:7], "big") for piece in pieces}
    try:
        file = _opened(root / CLAIMS)
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise
        yield True
        return
    how = 0 if wait else fcntl.LOCK_NB

    def take(place: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX | how, 1, place)

    with file:  # in one order in all processes, or two would wait for each other
        yield all(_lock(partial(take, place)) for place in sorted(places))


def _opened(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    file = path.open("a+b")  # NFS has no shared lock for a file that is not open for reading
    if is_new:
        with suppress(OSError):  # another process may have been first, whose file it is then
            os.chmod(file.fileno(), SHARED & path.parent.stat().st_mode)
    return file


def _lock(take: Callable[[], None]) -> bool:
    """Whether the lock is ours; it is, too, where there are none to be had."""
    if fcntl is None:
        return True
    try:
        take()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in NO_LOCKS:
            raise
    return True

"""Files that are whole or not there: written under a temporary name and renamed, known by their digest."""

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_of(stem: Path, suffix: str) -> Path:
    """STEM and a suffix: "NAME" and ".json" give NAME.json; `with_suffix` would cut a name at its dot."""
    return stem.with_name(stem.name + suffix)


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file all or nothing: whoever opens `path` sees the old content or the new, never a part of it."""
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"  # in the same folder: a rename across disks is a copy
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _settle(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Have a folder's new entries survive a loss of power, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

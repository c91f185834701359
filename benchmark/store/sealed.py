"""JSON records with their own checksum: what is read is what was written, or nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attacks.errors import InputError
from benchmark.store.chunk import checksum
from model_zoo.files.atomic import atomic_write


def sealed(record: Mapping[str, Any]) -> bytes:
    """A record as it is written, with its checksum."""
    whole = {**record, "checksum": digest_of(record)}
    return (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode()


def read_sealed(path: Path) -> dict[str, Any] | None:
    """A record without its checksum; None where there is none, or another than was written."""
    record = parsed(path)
    if not isinstance(record, dict):
        return None
    seal = record.pop("checksum", None)
    return record if seal == digest_of(record) else None


def parsed(path: Path) -> Any:
    """What a JSON file holds; None where there is none."""
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None  # a pipe would be waited for
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None


def digest_of(record: Mapping[str, Any]) -> str:
    """32 hexadecimal digits of the sha256 of a record, whatever the order of its fields."""
    return checksum(json.dumps(record, sort_keys=True, separators=(",", ":")).encode())


def write_or_say(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises: InputError where that fails."""
    try:
        atomic_write(path, content)
    except OSError as error:
        raise InputError(
            f"{path.parent}: expected a folder that can be written to, got: {error.strerror or error}; free space "
            "or mend its access, and run the same command again: what was computed is kept"
        ) from None

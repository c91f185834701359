"""A chunk of verdicts as bytes: what is in it, what it is called, and how it is read back without trust."""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from attacks.spec import CHUNK_SIZE
from benchmark.store.verdicts import Verdicts

Range = tuple[int, int]
CHUNK_NAME = re.compile(r"(\d{6,})-(\d{6,})\.([0-9a-f]{32})\.parquet")
COLUMNS = {
    "index": pa.int64(),
    "label": pa.int64(),
    "prediction": pa.int64(),
    "robust_any": pa.bool_(),
    "robust_last": pa.bool_(),
    "forwards": pa.float64(),
    "backwards": pa.float64(),
    "robust_single": pa.bool_(),
    "adversarial_class": pa.int64(),
    "queries": pa.int64(),
    "bad_queries": pa.int64(),
}
MAY_BE_ABSENT = ("robust_single", "adversarial_class", "queries", "bad_queries")
"""Columns that the chunks of some models, and those written before the column was, do not have at all."""
OPTIONAL = ("robust_last", *MAY_BE_ABSENT)
"""Columns that some cases lack: nulls, or no such column."""


def chunk_ranges(n: int) -> list[Range]:
    """The chunks of n images, as (start, stop)."""
    return [(start, min(start + CHUNK_SIZE, n)) for start in range(0, n, CHUNK_SIZE)]


def stem(chunk: Range) -> str:
    """How the name of a chunk's file begins."""
    return f"{chunk[0]:06d}-{chunk[1]:06d}"


def pack(key: str, chunk: Range, verdicts: Verdicts, timing: Mapping[str, Any]) -> tuple[str, bytes]:
    """The name and the content of the file for a chunk of a case."""
    n = len(verdicts.index)
    columns = {
        name: pa.nulls(n, kind) if getattr(verdicts, name) is None else pa.array(getattr(verdicts, name), kind)
        for name, kind in COLUMNS.items()
        if name not in MAY_BE_ABSENT or getattr(verdicts, name) is not None
    }
    metadata = {"timing": json.dumps(timing), "case": key, "images": stem(chunk)}
    buffer = io.BytesIO()
    table = pa.table(columns)
    with pq.ParquetWriter(buffer, table.schema, store_schema=False) as writer:  # Arrow's copy of it is half a chunk
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)
    content = buffer.getvalue()
    return f"{stem(chunk)}.{checksum(content)}.parquet", content


def unpack(content: bytes, key: str, chunk: Range) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns of a chunk by name (None for a reading that was not made), and how long it took.

    Raises: ValueError, in one line, for bytes that are not the verdicts of these images in this case.
    """
    expected = chunk[1] - chunk[0]
    columns, timing, written = {}, None, (key, stem(chunk))
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        rows = file.metadata.num_rows
        if rows == expected:  # else nothing is unpacked: few bytes may claim many rows
            table = file.read(list(COLUMNS), use_threads=False)
            metadata = {name.decode(): value.decode() for name, value in (file.metadata.metadata or {}).items()}
            timing, written = json.loads(metadata["timing"]), (metadata["case"], metadata["images"])
            columns = {name: _column(table, name) for name in COLUMNS}
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"chunk {stem(chunk)} is unreadable ({type(error).__name__})") from None
    if rows != expected:
        raise ValueError(f"chunk {stem(chunk)} has {rows} rows, expected {expected}")
    if not isinstance(timing, dict):
        raise ValueError(f"chunk {stem(chunk)} does not say how long it took")
    if written != (key, stem(chunk)):
        raise ValueError(f"chunk {stem(chunk)} holds images {written[1]} of case {written[0]}")
    return columns, timing


def whole_content(path: Path) -> bytes | None:
    """The bytes of a chunk's file; None where they are not those that its name says, or there is no file any more."""
    try:
        content = path.read_bytes() if path.is_file() else b""  # a pipe would be waited for
    except FileNotFoundError:
        return None
    return content if path.name.split(".")[1] == checksum(content) else None


def checksum(content: bytes) -> str:
    """32 hexadecimal digits of the sha256."""
    return hashlib.sha256(content).hexdigest()[:32]


def _column(table: pa.Table, name: str) -> Any:
    if name in MAY_BE_ABSENT and name not in table.column_names:
        return None
    column = table[name]
    if column.type != COLUMNS[name] or (column.null_count and name not in OPTIONAL):
        raise ValueError(f"{name} is of another type")
    return None if column.null_count else column.to_numpy()

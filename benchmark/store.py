"""The verdict store: one folder a case, one file a chunk, written under a temporary name and renamed.

runs/cases/KEY/case.json                    what the case is, and its flags
runs/cases/KEY/START-STOP.SHA256.parquet    the verdicts of images START to STOP; its own checksum is in its name
runs/suites/SUITE.json                      which cases the suite's tables show
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.case import CHUNK_SIZE
from benchmark.verdicts import Verdicts
from model_zoo.checkpoint import atomic_write

Range = tuple[int, int]
CHUNK_NAME = re.compile(r"(\d{6,})-(\d{6,})\.([0-9a-f]{32})\.parquet")


def chunk_ranges(n: int) -> list[Range]:
    """The chunks of n images, as (start, stop)."""
    return [(start, min(start + CHUNK_SIZE, n)) for start in range(0, n, CHUNK_SIZE)]


@dataclass(frozen=True)
class Store:
    """Verdicts under one folder. Damaged chunks are named on the way, and count as missing.

    Args:
        root: the folder `runs`.
    """

    root: Path

    def write_case(self, key: str, record: Mapping[str, Any]) -> None:
        """What is written beside the verdicts of a case: names, settings, flags."""
        _write_json(self._case(key) / "case.json", record)

    def read_case(self, key: str) -> dict[str, Any] | None:
        """The record of a case; None where there is none (or a damaged one)."""
        return _read_json(self._case(key) / "case.json")

    def missing(self, key: str, n: int) -> list[Range]:
        """The chunks that are not there whole."""
        present = self._chunks(key)
        return [chunk for chunk in chunk_ranges(n) if chunk not in present or not _is_whole(present[chunk])]

    def write_chunk(self, key: str, chunk: Range, verdicts: Verdicts, timing: Mapping[str, Any]) -> None:
        """Write a chunk's verdicts, with how long they took beside them."""
        columns = {
            "index": verdicts.index,
            "label": verdicts.label,
            "prediction": verdicts.prediction,
            "robust_any": verdicts.robust_any,
            "robust_last": pa.nulls(len(verdicts.index), pa.bool_())
            if verdicts.robust_last is None
            else verdicts.robust_last,
            "forwards": verdicts.forwards,
            "backwards": verdicts.backwards,
        }
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns).replace_schema_metadata({"timing": json.dumps(timing)}), buffer)
        content = buffer.getvalue()
        for damaged in self._case(key).glob(f"{_stem(chunk)}.*.parquet"):
            damaged.unlink()
        atomic_write(self._case(key) / f"{_stem(chunk)}.{_checksum(content)}.parquet", content)

    def read(self, key: str, n: int) -> tuple[Verdicts, list[dict[str, Any]]] | None:
        """All verdicts of a case and the timing of each chunk; None while a chunk is missing or damaged."""
        if self.missing(key, n):
            return None
        present = self._chunks(key)
        tables = [pq.read_table(io.BytesIO(present[chunk].read_bytes())) for chunk in chunk_ranges(n)]
        names = [name for name in tables[0].column_names if not tables[0][name].null_count]
        columns: dict[str, Any] = {name: np.concatenate([t[name].to_numpy() for t in tables]) for name in names}
        return Verdicts(**{"robust_last": None, **columns}), [json.loads(t.schema.metadata[b"timing"]) for t in tables]

    def damaged(self, key: str) -> list[Path]:
        """Chunk files whose content does not match the checksum in their name."""
        return [path for path in self._chunks(key).values() if not _is_whole(path)]

    def write_suite(self, suite: str, record: Mapping[str, Any]) -> None:
        """Which cases the tables of a suite show."""
        _write_json(self.root / "suites" / f"{suite}.json", record)

    def read_suite(self, suite: str) -> dict[str, Any] | None:
        """What write_suite wrote; None where there is nothing."""
        return _read_json(self.root / "suites" / f"{suite}.json")

    def suites(self) -> Sequence[str]:
        """The suites that have something to show."""
        return sorted(path.stem for path in (self.root / "suites").glob("*.json"))

    def _case(self, key: str) -> Path:
        return self.root / "cases" / key

    def _chunks(self, key: str) -> dict[Range, Path]:
        found = {}
        for path in sorted(self._case(key).glob("*-*.*.parquet")):
            if match := CHUNK_NAME.fullmatch(path.name):
                found[int(match[1]), int(match[2])] = path
        return found


def _stem(chunk: Range) -> str:
    return f"{chunk[0]:06d}-{chunk[1]:06d}"


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _is_whole(path: Path) -> bool:
    return path.name.split(".")[1] == _checksum(path.read_bytes())


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    atomic_write(path, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return record

"""The verdict store: one folder a case, one file a chunk, written under a temporary name and renamed.

runs/store.json                             the version of this layout
runs/cases/KEY/case.json                    what the case is, and its flags
runs/cases/KEY/START-STOP.SHA256.parquet    the verdicts of images START to STOP; its own checksum is in its name
runs/cases/KEY/START-STOP.SHA256.npz        their adversarial images, where they are kept (images.py)
runs/suites/SUITE.json                      which cases the suite's tables show
runs/diagnoses/SUITE/NETWORK.json           what a diagnosis found of one model of the suite
runs/certificates, runs/certified           what is proven (certificate_store.py)
"""

import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from attacks.errors import InputError
from benchmark.data.split import Split
from benchmark.store.chunk import CHUNK_NAME, COLUMNS, Range, chunk_ranges, pack, unpack, whole_content
from benchmark.store.diagnosis import CHECKS, Diagnosis, diagnosis_from
from benchmark.store.images import image_files, pack_images
from benchmark.store.sealed import digest_of, parsed, read_sealed, sealed, write_or_say
from benchmark.store.shown import Shown, SuiteRecord, suite_record_from
from benchmark.store.verdicts import Verdicts

VERSION = 2
"""Of the layout. Since 2 a chunk names its case and images, and a record has a checksum."""


@dataclass(frozen=True)
class Store:
    """Verdicts under one folder. Damaged chunks are named on the way, and count as missing.

    Args:
        root: the folder `runs`.
    """

    root: Path

    @property
    def version(self) -> int:
        """Of the layout that the folder has, whoever sealed it; 1 for verdicts beside which nothing says it."""
        path = self.root / "store.json"
        record = parsed(path)
        version = record.get("version") if isinstance(record, dict) else None
        if isinstance(version, int):
            return version
        has_verdicts = any((self.root / name).exists() for name in ("cases", "suites"))
        return 1 if has_verdicts and not path.exists() else VERSION

    @property
    def is_damaged(self) -> bool:
        """Whether the file that says the version is not as it was written; the next sweep writes it anew."""
        path = self.root / "store.json"
        return path.exists() and read_sealed(path) is None

    def check(self) -> None:
        """Raise InputError for a folder that an older or a newer program wrote."""
        if self.version != VERSION:
            is_newer = self.version > VERSION
            remedy = "update this program, or name" if is_newer else "run the benchmark again into"
            raise InputError(
                f"{self.root}: expected a store of version {VERSION}, got {self.version}; {remedy} "
                "another --results-dir"
            )

    def open(self) -> None:
        """Make the folder ready to be written to. Raises: InputError where it cannot be."""
        self.check()
        self._write_json(self.root / "store.json", {"version": VERSION})

    def write_case(self, key: str, record: Mapping[str, Any]) -> None:
        """What is written beside the verdicts of a case: names, settings, flags."""
        self._write_json(self._case(key) / "case.json", record)

    def read_case(self, key: str) -> dict[str, Any] | None:
        """The record of a case; None where there is none (or a damaged one)."""
        record = read_sealed(self._case(key) / "case.json")
        return record if record is not None and isinstance(record.get("flags"), list) else None

    def has_record(self, key: str) -> bool:
        """Whether there is a record, damaged or not."""
        return (self._case(key) / "case.json").exists()

    def absent(self, key: str, n: int) -> list[Range]:
        """The chunks that are not there at all: by their names, without reading them."""
        present = {chunk for chunk, _ in self.chunks(key)}
        return [chunk for chunk in chunk_ranges(n) if chunk not in present]

    def write_chunk(self, key: str, chunk: Range, verdicts: Verdicts, timing: Mapping[str, Any]) -> None:
        """Write a chunk's verdicts, with how long they took; what another process wrote meanwhile is kept instead."""
        before = [path for found, path in self.chunks(key) if found == chunk]
        damaged = [path for path in before if whole_content(path) is None]
        for path in damaged:
            discard(path)
        if before == damaged:
            name, content = pack(key, chunk, verdicts, timing)
            self._write(self._case(key) / name, content)

    def without_images(self, key: str, n: int) -> list[Range]:
        """The chunks whose adversarial images are not kept, by the files' names."""
        kept = {chunk for chunk, _ in image_files(self._case(key))}
        return [chunk for chunk in chunk_ranges(n) if chunk not in kept]

    def write_images(self, key: str, chunk: Range, images: Split, x_adv: Tensor) -> None:
        """Keep a chunk's adversarial images; what another process kept meanwhile is left."""
        before = [path for found, path in image_files(self._case(key)) if found == chunk]
        if not any(whole_content(path) is not None for path in before):
            name, content = pack_images(chunk, images, x_adv)
            self._write(self._case(key) / name, content)

    def read(self, key: str, n: int) -> tuple[Verdicts, list[dict[str, Any]]] | None:
        """All verdicts of a case and the timing of each chunk; None while a chunk is missing or damaged.

        Raises: InputError for a chunk that is as it was written, and yet no verdicts of this case.
        """
        contents = {chunk: content for chunk, path in self.chunks(key) if (content := whole_content(path)) is not None}
        if any(chunk not in contents for chunk in chunk_ranges(n)):
            return None
        try:
            parts, timing = zip(*(unpack(contents[chunk], key, chunk) for chunk in chunk_ranges(n)), strict=True)
        except ValueError as error:
            raise InputError(f"{self._case(key)}: {error}; remove it by 'store gc' and run the sweep again") from None
        names = [name for name in COLUMNS if all(part[name] is not None for part in parts)]
        columns: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in names}
        return Verdicts(**{"robust_last": None, **columns}), list(timing)

    def timing(self, key: str, most: int) -> list[tuple[int, dict[str, Any]]]:
        """Of some whole chunks of a case, `most` at most, how many images they hold and how they were computed."""
        found = []
        for chunk, path in itertools.islice(self.chunks(key), most):
            with suppress(ValueError):
                content = whole_content(path)
                if content is not None:
                    found.append((chunk[1] - chunk[0], unpack(content, key, chunk)[1]))
        return found

    def damaged(self, key: str, *, images: bool = False) -> list[Path]:
        """Files of verdicts, or also of kept images, whose content does not match the checksum in their name."""
        files = [*self.chunks(key), *(image_files(self._case(key)) if images else ())]
        return [path for _, path in files if path.exists() and whole_content(path) is None]

    def write_suite(self, suite: str, record: SuiteRecord) -> None:
        """Which cases the tables of a suite show."""
        self._write_json(self.root / "suites" / f"{suite}.json", record.to_dict())

    def read_suite(self, suite: str) -> SuiteRecord | None:
        """What write_suite wrote; None where there is nothing. Raises: InputError for a damaged record, by its name."""
        path = self.root / "suites" / f"{suite}.json"
        record, what = read_sealed(path), "a damaged file"
        if record is None and not path.exists():
            return None
        try:
            if record is not None:
                return suite_record_from(record)
        except ValueError as error:
            what = f"another file ({error})"
        raise InputError(
            f"{path}: expected which cases the tables show, got {what}; remove it and run the same "
            "sweeps again: no verdict is lost, and none is computed again"
        )

    def shown(self, suite: str) -> Shown:
        """The cases that the tables of a suite show. Raises: InputError for a damaged record, by its name."""
        record = self.read_suite(suite)
        return Shown() if record is None else record.selections[record.shown]

    def suites(self) -> Sequence[str]:
        """The suites that have something to show."""
        return sorted(path.stem for path in (self.root / "suites").glob("*.json"))

    def write_diagnosis(self, suite: str, diagnosis: Diagnosis) -> None:
        """What a diagnosis found of a model; it takes the place of what one found before of the same network."""
        name = digest_of(dict(diagnosis.network))
        self._write_json(self.root / "diagnoses" / suite / f"{name}.json", diagnosis.to_dict())

    def read_diagnoses(self, suite: str) -> list[Diagnosis]:
        """What diagnoses found of the models of a suite, by name, by checks of today's version.

        Raises: InputError for a damaged record.
        """
        found = []
        for path in sorted((self.root / "diagnoses" / suite).glob("*.json")):
            record = read_sealed(path)
            try:
                if record is None:
                    raise ValueError("expected a record with its checksum, got a damaged file")
                found.append(diagnosis_from(record))
            except ValueError as error:
                raise InputError(f"{path}: {error}; remove it and run the same diagnosis again") from None
        today = [one for one in found if one.checks == CHECKS]
        return sorted(today, key=lambda diagnosis: (diagnosis.model, str(diagnosis.network)))

    def diagnosed_suites(self) -> Sequence[str]:
        """The suites of which some model was diagnosed."""
        return sorted(path.name for path in (self.root / "diagnoses").glob("*") if any(path.glob("*.json")))

    def case_keys(self) -> list[str]:
        """The cases that have a folder."""
        folder = self.root / "cases"
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()) if folder.is_dir() else []

    def chunks(self, key: str) -> Iterator[tuple[Range, Path]]:
        """The chunk files of a case, by their names; usually one for each range of images."""
        folder = self._case(key)
        names = os.listdir(folder) if folder.is_dir() else []
        for name in sorted(names):
            if match := CHUNK_NAME.fullmatch(name):
                yield (int(match[1]), int(match[2])), folder / name

    def _case(self, key: str) -> Path:
        return self.root / "cases" / key

    def _write_json(self, path: Path, record: Mapping[str, Any]) -> None:
        write_or_say(path, sealed(record))

    def _write(self, path: Path, content: bytes) -> None:
        write_or_say(path, content)


def discard(path: Path) -> None:
    """Remove what lies where a file should be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

"""What is wrong with a verdict store, and what in it is garbage. Reads everything, trusts nothing, changes nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attacks.errors import InputError
from benchmark.store.chunk import Range, chunk_ranges, unpack, whole_content
from benchmark.store.images import image_files, unpack_images
from benchmark.store.shown import ShownCase
from benchmark.store.store import Store
from benchmark.suites.case import key_of


@dataclass(frozen=True)
class Fault:
    """A file that is not what it should be.

    Args:
        what: one line.
        removable: whether `store gc` removes it: the sweep makes it again, and there is one to remove.
    """

    path: Path
    what: str
    removable: bool = True


@dataclass(frozen=True)
class IncompleteCase:
    """A case that a table shows and that lacks chunks, of `chunks` in all, or its record."""

    suite: str
    cell: str
    lacking: int
    chunks: int
    has_record: bool

    def __str__(self) -> str:
        chunks = [f"{self.lacking} of {self.chunks} chunks"] if self.lacking else []
        record = [] if self.has_record else ["its record"]
        return f"{self.suite}: {self.cell} lacks {' and '.join(chunks + record)}"


def case_faults(store: Store, key: str) -> list[Fault]:
    """What is wrong with a case, its chunks and its kept images."""
    folder = store.root / "cases" / key
    faults: list[Fault] = []
    record = store.read_case(key)
    if not any(folder.iterdir()):
        return [Fault(folder, "an empty folder")]
    faults += record_faults(folder / "case.json", record, key)
    sound: dict[Range, Path] = {}
    highest = -1
    for chunk, path in store.chunks(key):
        content = whole_content(path)
        try:
            if content is None:
                raise ValueError("damaged: its content is not what its name says")
            columns, _ = unpack(content, key, chunk)
            _check_verdicts(columns, after=-1 if chunk in sound else highest)
        except ValueError as error:
            faults.append(Fault(path, str(error)))
            continue
        if chunk in sound:  # of several the last by name is read
            faults.append(Fault(sound[chunk], "a second file of the same images"))
        sound[chunk], highest = path, int(columns["index"][-1])
    return [*faults, *_image_faults(folder)]


def record_faults(path: Path, record: Mapping[str, Any] | None, key: str) -> Iterator[Fault]:
    """What is wrong with the record of a case; None is one that cannot be read."""
    if record is None:
        yield Fault(path, "damaged" if path.exists() else "missing", removable=path.exists())
    elif not isinstance(record.get("identity"), dict) or key_of(record["identity"]) != key:
        yield Fault(path, "the identity of another case")


def _image_faults(folder: Path) -> Iterator[Fault]:
    """What is wrong with the kept images of a case."""
    sound: dict[Range, Path] = {}
    for chunk, path in image_files(folder):
        try:
            unpack_images(path)
        except ValueError as error:
            yield Fault(path, str(error))
            continue
        if chunk in sound:
            yield Fault(sound[chunk], "a second file of the same images")
        sound[chunk] = path


def _check_verdicts(columns: dict[str, Any], *, after: int) -> None:
    """Raise ValueError for verdicts that contradict themselves, or images that do not come after those before."""
    index, robust, last = columns["index"], columns["robust_any"], columns["robust_last"]
    if not (len(index) and index[0] > after and (np.diff(index) > 0).all()):
        raise ValueError("images out of order, or twice")
    if (robust & (columns["label"] != columns["prediction"])).any():
        raise ValueError("images that are robust though they are misclassified when clean")
    single = columns["robust_single"]
    if single is not None and (single & (columns["label"] != columns["prediction"])).any():
        raise ValueError("images that are robust in one draw though they are misclassified when clean")
    taken_for = columns["adversarial_class"]
    if taken_for is not None and (
        ((taken_for < 0) != (robust | (columns["label"] != columns["prediction"]))).any()
        or (taken_for == columns["label"]).any()
    ):
        raise ValueError("classes of images that were not broken, or none of images that were")
    if last is not None and (robust & ~last).any():
        raise ValueError("images that are robust at every iterate and not at the last")
    queries, bad = columns["queries"], columns["bad_queries"]
    if (queries is None) != (bad is None) or (queries is not None and ((bad < 0) | (bad > queries)).any()):
        raise ValueError("queries that are fewer than the bad ones among them, or one count without the other")
    for name in ("forwards", "backwards"):
        if not (np.isfinite(columns[name]) & (columns[name] >= 0)).all():
            raise ValueError(f"{name} that are no number of passes")


def suite_faults(store: Store) -> list[Fault]:
    """Records of the store and of its suites that are damaged."""
    faults = []
    if store.is_damaged:
        faults.append(Fault(store.root / "store.json", "damaged; the next sweep writes it anew", removable=False))
    for suite in store.suites():
        try:
            ever_shown(store, suite)
        except InputError as error:
            faults.append(Fault(store.root / "suites" / f"{suite}.json", str(error), removable=False))
    return faults


def ever_shown(store: Store, suite: str) -> list[ShownCase]:
    """The cases of all selections of a suite. Raises: InputError for a damaged record."""
    record = store.read_suite(suite)
    return [] if record is None else [case for shown in record.selections.values() for case in shown.cases]


def incomplete_cases(store: Store) -> Iterator[IncompleteCase]:
    """Cases shown that lack chunks or their record: by the names of the chunks' files, without reading those."""
    for suite in store.suites():
        for case in ever_shown(store, suite):
            absent, has_record = store.absent(case.key, case.n), store.read_case(case.key) is not None
            if absent or not has_record:
                yield IncompleteCase(suite, case.title, len(absent), len(chunk_ranges(case.n)), has_record)


def temporary_files(results_dir: Path) -> list[Path]:
    """What processes that were killed left behind: in the store, and beside the tables."""
    folders = [path for path in results_dir.iterdir() if path.is_dir() and path.name != "runs"]
    beside = [*results_dir.glob(".*.tmp"), *(path for folder in folders for path in folder.rglob(".*.tmp"))]
    return sorted([*beside, *(results_dir / "runs").rglob(".*.tmp")])


def unshown_cases(store: Store) -> Sequence[str]:
    """Keys of cases that no selection of any suite names. Raises: InputError where a suite's record is damaged."""
    named = {case.key for suite in store.suites() for case in ever_shown(store, suite)}
    return [key for key in store.case_keys() if key not in named]

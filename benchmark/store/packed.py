"""What a suite shows, small enough for git: a summary in JSON, one line a case, beside its verdicts in one packed file.

STEM.json   what each case is and what it came to; `common` holds for all cases, `models` for those of one model
STEM.bin    the verdicts: zlib over these arrays, one after the other, little-endian, in the order of the summary:
              for each of `images`:       index (n int64), label (n uint16)
              for each of `predictions`:  predicted class of the clean images (n uint16), minus the label
              for each of `cases`:        robust_any, and robust_last and robust_single where the case has them: a bit
                                          an image, the first in the highest bit, each row filled up to a whole byte;
                                          where the case has adversarial_class, it of the broken images alone (uint16);
                                          where it has queries, these and the bad ones among them (n uint32 each)

Both carry a checksum, and nothing that differs from run to run: how long a case took is in the tables' timing.csv.
Passes are known in total only: an image's own are an even share.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attacks.errors import InputError
from benchmark.stats.shares import Bools
from benchmark.store.packed_json import Line, digest_of, expanded, factored, text_of
from benchmark.store.selection import Readable
from benchmark.store.shown import Selection, Shown, ShownCase, case_from, selection_from, selection_of
from benchmark.store.verdicts import Verdicts
from model_zoo.files.atomic import atomic_write, file_of

FORMAT = "packed verdicts 2"
LARGEST = 2**32
"""Bytes that a packed file may unpack to."""
Classes = NDArray[np.uint16]


@dataclass(frozen=True)
class PackedCase:
    """One case: its entry and caveats, its verdicts as bits, and passes in total.

    Args:
        timing: how its chunks were computed, where a store said so: no file of `write_packed` has it.
        zero_gradients: percentage of images without gradient; None where nobody looked.
    """

    entry: ShownCase
    flags: Sequence[str]
    index: NDArray[np.int64]
    label: Classes
    prediction: Classes
    robust_any: Bools
    robust_last: Bools | None
    forwards: float
    backwards: float
    robust_single: Bools | None = None
    zero_gradients: float | None = None
    adversarial_class: NDArray[np.int64] | None = None
    queries: NDArray[np.int64] | None = None
    bad_queries: NDArray[np.int64] | None = None
    timing: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Packed:
    """Cases that answer as a verdict store does, so that `score_suite` reads either.

    Args:
        suite, reading: as in the tables.
        cases: by key, in display order.
        notes: what else the summary says.
        selection: what the cases were selected by; None where it is that of the first one.
    """

    suite: str
    reading: str
    cases: Mapping[str, PackedCase]
    notes: Mapping[str, Any] = field(default_factory=dict)
    selection: Selection | None = None

    @property
    def selected(self) -> Selection:
        """What the cases, of which there is at least one, were selected by."""
        return self.selection or _selection_of_first(self)

    def shown(self, suite: str) -> Shown:
        """The cases that the tables of the suite show; none for another suite."""
        return Shown(self.reading, [case.entry for case in self.cases.values()]) if suite == self.suite else Shown()

    def read_case(self, key: str) -> dict[str, Any] | None:
        """The flags of a case, and the percentage of images without gradient."""
        case = self.cases.get(key)
        return None if case is None else {"flags": list(case.flags), "zero_gradients": case.zero_gradients}

    def read(self, key: str, n: int) -> tuple[Verdicts, list[dict[str, Any]]] | None:
        """The verdicts of a case of n images, and the timing of its chunks where it is known."""
        case = self.cases.get(key)
        if case is None or len(case.index) != n:
            return None
        verdicts = Verdicts(
            index=case.index,
            label=case.label.astype(np.int64),
            prediction=case.prediction.astype(np.int64),
            robust_any=case.robust_any,
            robust_last=case.robust_last,
            forwards=_even_shares(case.forwards, n),
            backwards=_even_shares(case.backwards, n),
            robust_single=case.robust_single,
            adversarial_class=case.adversarial_class,
            queries=case.queries,
            bad_queries=case.bad_queries,
        )
        return verdicts, [dict(chunk) for chunk in case.timing]


def gather(
    store: Readable, suite: str, notes: Mapping[str, Any] | None = None, *, selection: Selection | None = None
) -> Packed:
    """All complete cases that the tables of a suite show, and what they were selected by."""
    shown, cases = store.shown(suite), {}
    for entry in shown.cases:
        stored, record = store.read(entry.key, entry.n), store.read_case(entry.key)
        if stored is not None and record is not None:
            caveats = record["flags"], record.get("zero_gradients")
            cases[entry.key] = replace(packed_case(entry, stored[0], *caveats), timing=stored[1])
    return Packed(suite, shown.reading, cases, notes or {}, selection)


def packed_case(
    entry: ShownCase,
    verdicts: Verdicts,
    flags: Sequence[str],
    zero_gradients: float | None = None,
) -> PackedCase:
    """A case as it is packed. Raises: ValueError for classes that do not fit into 16 bits."""
    label, prediction = verdicts.label.astype(np.uint16), verdicts.prediction.astype(np.uint16)
    found = verdicts.adversarial_class
    is_beyond = found is not None and bool((found > np.iinfo(np.uint16).max).any())
    if is_beyond or (label != verdicts.label).any() or (prediction != verdicts.prediction).any():
        raise ValueError("expected classes below 65,536")
    passes = float(verdicts.forwards.sum()), float(verdicts.backwards.sum())
    bits = verdicts.robust_any, verdicts.robust_last
    columns = verdicts.index, label, prediction, *bits, *passes, verdicts.robust_single
    return PackedCase(entry, flags, *columns, zero_gradients, found, verdicts.queries, verdicts.bad_queries)


def write_packed(packed: Packed, stem: Path) -> None:
    """Write STEM.json and STEM.bin; the same cases give the same bytes."""
    images: dict[str, tuple[int, bytes]] = {}
    predictions: dict[tuple[int, bytes], None] = {}
    records: list[Line] = []
    bits: list[bytes] = []
    for case in packed.cases.values():
        known = len(case.index), case.index.astype("<i8").tobytes() + case.label.astype("<u2").tobytes()
        if images.setdefault(case.entry.images, known) != known:
            raise ValueError(f"{case.entry.cell}: expected the images of its digest, got others")
        where = list(images).index(case.entry.images)
        predicted = where, (case.prediction - case.label).astype("<u2").tobytes()
        predictions.setdefault(predicted)
        records.append(_record(case, list(predictions).index(predicted)))
        readings = case.robust_any, case.robust_last, case.robust_single
        bits += [np.packbits(row).tobytes() for row in readings if row is not None]
        if case.adversarial_class is not None:
            broken = _broken(case.label, case.prediction, case.robust_any)
            bits.append(case.adversarial_class[broken].astype("<u2").tobytes())
        bits += [counts.astype("<u4").tobytes() for counts in (case.queries, case.bad_queries) if counts is not None]
    rows = [*(both for _, both in images.values()), *(classes for _, classes in predictions), *bits]
    binary = zlib.compress(b"".join(rows), 9)
    document = {
        "format": FORMAT,
        "suite": packed.suite,
        "reading": packed.reading,
        **({"notes": dict(packed.notes)} if packed.notes else {}),
        **(
            {"selection": packed.selected.text}
            if packed.cases and packed.selected != _selection_of_first(packed)
            else {}
        ),
        "packed": {"bytes": len(binary), "sha256": hashlib.sha256(binary).hexdigest()},
        "images": [{"digest": digest, "n": n} for digest, (n, _) in images.items()],
        "predictions": [where for where, _ in predictions],
        **factored(records),
    }
    atomic_write(file_of(stem, ".bin"), binary)
    atomic_write(file_of(stem, ".json"), text_of({**document, "sha256": digest_of(document)}).encode())


def read_packed(path: Path) -> Packed:
    """What `write_packed` wrote, by its summary. Raises: InputError for files that are missing, damaged or others."""
    remedy = "take both files from git, or write them again"
    try:
        document = json.loads(path.read_bytes())
        is_whole = document.pop("sha256") == digest_of(document) and document["format"] == FORMAT
        wanted = document["packed"]["sha256"]
    except FileNotFoundError:
        raise InputError(f"expected packed verdicts at {path}, found none; mend the path") from None
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        raise InputError(f"{path}: expected the summary of packed verdicts, got another file; {remedy}") from None
    if not is_whole:
        raise InputError(f"{path}: expected {FORMAT}, unchanged since it was written, got another; {remedy}")
    beside = path.with_suffix(".bin")
    try:
        binary = beside.read_bytes()
    except FileNotFoundError:
        raise InputError(f"expected the packed verdicts of {path.name} at {beside}, found none; {remedy}") from None
    if hashlib.sha256(binary).hexdigest() != wanted:
        raise InputError(f"{beside}: not the file that {path.name} was written with: damaged or another; {remedy}")
    try:
        return _unpack(document, zlib.decompressobj().decompress(binary, LARGEST))
    except (zlib.error, ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise InputError(
            f"{path}: expected {FORMAT}, got a summary that does not fit the verdicts beside it "
            f"({type(error).__name__}); {remedy}"
        ) from None


def _unpack(document: Line, content: bytes) -> Packed:
    place = 0

    def take(dtype: str, n: int) -> NDArray[Any]:
        nonlocal place
        array = np.frombuffer(content, dtype, n, place)
        place += array.nbytes
        return array

    sizes = [known["n"] for known in document["images"]]
    images = [(take("<i8", n).astype(np.int64), take("<u2", n).astype(np.uint16)) for n in sizes]
    predictions = [(where, take("<u2", sizes[where]) + images[where][1]) for where in document["predictions"]]

    def take_bits(n: int) -> Bools:
        bits: Bools = np.unpackbits(take("u1", -(-n // 8)), count=n).astype(np.bool_)
        return bits

    cases = {}
    for line in document["cases"]:
        record = expanded(line, document)
        where, prediction = predictions[record.pop("prediction")]
        index, label = images[where]
        has_last = record.pop("robust_last") is not None
        has_single = record.pop("robust_single", None) is not None
        robust_any, robust_last = take_bits(len(index)), take_bits(len(index)) if has_last else None
        robust_single = take_bits(len(index)) if has_single else None
        adversarial_class = None
        if record.pop("adversarial_class", False):
            broken = _broken(label, prediction, robust_any)
            adversarial_class = np.full(len(index), -1)
            adversarial_class[broken] = take("<u2", int(broken.sum()))
        queries, bad_queries = (
            [take("<u4", len(index)).astype(np.int64) for _ in range(2)]
            if record.pop("queries", False)
            else (None, None)
        )
        without = record.pop("zero_gradients", None)
        flags, passes = record.pop("flags"), (float(record.pop("forwards")), float(record.pop("backwards")))
        entry = case_from({name: value for name, value in record.items() if name not in ("correct", "robust")})
        bits = prediction, robust_any, robust_last
        case = PackedCase(entry, flags, index, label, *bits, *passes, robust_single, without)
        found = replace(case, adversarial_class=adversarial_class)
        cases[entry.key] = replace(found, queries=queries, bad_queries=bad_queries)
    text = document.get("selection")
    selection = None if text is None else selection_from(text)
    return Packed(document["suite"], document["reading"], cases, document.get("notes", {}), selection)


def _selection_of_first(packed: Packed) -> Selection:
    """What the first case says of the selection, which is all of it where that case attacks all of the images."""
    return selection_of(next(iter(packed.cases.values())).entry)


def _record(case: PackedCase, prediction: int) -> Line:
    """What the summary says of a case: its entry, and what it came to, as counts of images and of passes."""
    last = None if case.robust_last is None else int(case.robust_last.sum())
    counts = {"correct": int((case.prediction == case.label).sum()), "robust": int(case.robust_any.sum())}
    passes = {"forwards": _int_if_whole(case.forwards), "backwards": _int_if_whole(case.backwards)}
    single = {} if case.robust_single is None else {"robust_single": int(case.robust_single.sum())}
    without = {} if case.zero_gradients is None else {"zero_gradients": case.zero_gradients}
    known = {name: True for name in ("adversarial_class", "queries") if getattr(case, name) is not None}
    outcome = {"flags": list(case.flags), **without, "prediction": prediction, **counts, "robust_last": last, **single}
    return {**case.entry.to_dict(), **outcome, **known, **passes}


def _broken(label: Classes, prediction: Classes, robust: Bools) -> Bools:
    """(N,) bool: correct when clean, and not under the attack."""
    broken: Bools = (label == prediction) & ~robust
    return broken


def _even_shares(total: float, n: int) -> NDArray[np.float64]:
    """(n,) even shares in whole passes that sum to the total exactly; the first image has what is left over."""
    shares = np.full(n, total // n)
    shares[0] += total - n * (total // n)
    return shares


def _int_if_whole(number: float) -> float:
    return int(number) if number.is_integer() else number

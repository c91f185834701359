"""What of a run the store lacks: the chunks of each case, and the cases."""

import itertools
import sys
from collections.abc import Sequence

from benchmark.evaluation.hardware import Hardware
from benchmark.store.chunk import Range
from benchmark.store.store import Store, discard
from benchmark.suites.case import EvalCase, case_key


def lacking_chunks(case: EvalCase, store: Store, hardware: Hardware) -> set[Range]:
    """The chunks of a case that are not there, or not with the images that are to be kept."""
    key = case_key(case)
    return {*store.absent(key, case.n), *(store.without_images(key, case.n) if hardware.keeps_images else ())}


def lacking(cases: Sequence[EvalCase], store: Store, hardware: Hardware) -> list[tuple[EvalCase, set[Range]]]:
    """Each case with the chunks that it lacks, as `lacking_chunks`."""
    return [(case, lacking_chunks(case, store, hardware)) for case in cases]


def lacking_cases(cases: Sequence[EvalCase], store: Store, hardware: Hardware) -> list[EvalCase]:
    """The cases that lack chunks or their record; damaged chunks are named and removed."""
    store.check()
    for path in itertools.chain.from_iterable(
        store.damaged(case_key(case), images=hardware.keeps_images) for case in cases
    ):
        print(f"damaged chunk, will be computed again: {path}", file=sys.stderr)
        discard(path)
    found = lacking(cases, store, hardware)
    return [case for case, chunks in found if chunks or not store.read_case(case_key(case))]

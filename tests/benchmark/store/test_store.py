"""The verdict store: what is written is read back, and a damaged or half-written file is never taken for verdicts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attacks.spec import CHUNK_SIZE
from benchmark.store.chunk import chunk_ranges, pack, unpack
from benchmark.store.shown import Selection, Shown, SuiteRecord
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts

KEY = "0123456789abcdef"
TIMING = {"seconds": 1.5, "device": "cpu", "precision": "fp32", "batch_size": 250, "threads": 1, "versions": "torch=2"}


def verdicts(
    start: int, stop: int, *, last: bool = True, single: bool = False, classes: bool = False, queries: bool = False
) -> Verdicts:
    generator = np.random.default_rng(start)
    index = np.arange(start, stop)
    robust = generator.random(len(index)) < 0.5
    return Verdicts(
        index=index,
        label=index % 10,
        prediction=generator.integers(0, 10, len(index)),
        robust_any=robust,
        robust_last=robust | (generator.random(len(index)) < 0.5) if last else None,
        forwards=generator.random(len(index)),
        backwards=generator.random(len(index)),
        robust_single=generator.random(len(index)) < 0.5 if single else None,
        adversarial_class=generator.integers(-1, 10, len(index)) if classes else None,
        queries=index + 5 if queries else None,
        bad_queries=index % 5 if queries else None,
    )


def assert_equal(got: Verdicts, expected: Verdicts) -> None:
    for name, value in vars(expected).items():
        if value is None:
            assert getattr(got, name) is None
        else:
            assert getattr(got, name).dtype == value.dtype
            np.testing.assert_array_equal(getattr(got, name), value)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_verdicts_and_timing_are_read_back_unchanged(store: Store, last: bool, single: bool, classes: bool) -> None:
    expected = verdicts(0, 40, last=last, single=single, classes=classes)
    store.write_chunk(KEY, (0, 40), expected, TIMING)
    stored = store.read(KEY, 40)
    assert stored is not None
    assert_equal(stored[0], expected)
    assert stored[1] == [TIMING]


def test_chunks_are_joined_in_the_order_of_the_images_whatever_the_order_of_writing(store: Store) -> None:
    n = CHUNK_SIZE + 50
    expected = verdicts(0, n, single=True, classes=True, queries=True)
    for start, stop in reversed(chunk_ranges(n)):
        part = {name: value[start:stop] for name, value in vars(expected).items()}
        store.write_chunk(KEY, (start, stop), Verdicts(**part), {**TIMING, "seconds": float(start)})
    stored = store.read(KEY, n)
    assert stored is not None
    assert_equal(stored[0], expected)
    assert [timing["seconds"] for timing in stored[1]] == [0.0, float(CHUNK_SIZE)]


@pytest.mark.parametrize("n", [1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE])
def test_chunks_cover_every_image_once(n: int) -> None:
    covered = [i for start, stop in chunk_ranges(n) for i in range(start, stop)]
    assert covered == list(range(n))
    assert max(stop - start for start, stop in chunk_ranges(n)) <= CHUNK_SIZE


def test_a_case_is_unreadable_while_a_chunk_is_missing(store: Store) -> None:
    first, second = chunk_ranges(CHUNK_SIZE + 50)
    assert store.absent(KEY, second[1]) == [first, second]
    store.write_chunk(KEY, second, verdicts(*second), TIMING)
    assert store.absent(KEY, second[1]) == [first]
    assert store.read(KEY, second[1]) is None


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def truncated(content: bytes) -> bytes:
    return content[:-100]


def emptied(_content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [flipped, truncated, emptied])
def test_a_damaged_chunk_is_named_and_counts_as_missing_until_written_again(
    store: Store, damage: Callable[[bytes], bytes]
) -> None:
    store.write_chunk(KEY, (0, 40), verdicts(0, 40), TIMING)
    assert store.damaged(KEY) == []
    (path,) = (store.root / "cases" / KEY).glob("*.parquet")
    path.write_bytes(damage(path.read_bytes()))

    assert store.damaged(KEY) == [path]
    assert store.read(KEY, 40) is None

    store.write_chunk(KEY, (0, 40), verdicts(0, 40), TIMING)
    assert not store.damaged(KEY)
    assert store.read(KEY, 40) is not None
    assert len(list((store.root / "cases" / KEY).iterdir())) == 1


def test_a_temporary_file_is_no_chunk(store: Store) -> None:
    store.write_chunk(KEY, (0, 40), verdicts(0, 40), TIMING)
    (path,) = (store.root / "cases" / KEY).glob("*.parquet")
    path.rename(path.with_name(".0011223344556677.tmp"))
    assert store.absent(KEY, 40) == [(0, 40)]
    assert store.damaged(KEY) == []


def test_writing_leaves_no_temporary_file(store: Store) -> None:
    store.write_case(KEY, {"flags": []})
    store.write_chunk(KEY, (0, 40), verdicts(0, 40), TIMING)
    assert sorted(path.suffix for path in (store.root / "cases" / KEY).iterdir()) == [".json", ".parquet"]


def test_records_are_read_back_and_their_bytes_do_not_depend_on_the_order_of_keys(store: Store) -> None:
    record = {"flags": ["randomized"], "identity": {"seed": 0, "images": "ab"}}
    store.write_case(KEY, record)
    first = (store.root / "cases" / KEY / "case.json").read_bytes()
    store.write_case(KEY, {"identity": {"images": "ab", "seed": 0}, "flags": ["randomized"]})
    assert (store.root / "cases" / KEY / "case.json").read_bytes() == first
    assert store.read_case(KEY) == record

    selection = Selection("ab", "L2", 1.0, 0)
    suite = SuiteRecord(selection, {selection: Shown("last")})
    store.write_suite("mnist", suite)
    store.write_suite("digits", suite)
    assert store.suites() == ["digits", "mnist"]
    assert store.read_suite("digits") == suite


@pytest.mark.parametrize("content", [b"", b'{"flags": [', b"\xff\xfe"])
def test_a_damaged_record_reads_as_none(store: Store, content: bytes) -> None:
    store.write_case(KEY, {"flags": []})
    (store.root / "cases" / KEY / "case.json").write_bytes(content)
    assert store.read_case(KEY) is None


def test_an_empty_store_has_nothing_and_needs_no_folder(store: Store) -> None:
    assert store.suites() == []
    assert store.read_case(KEY) is None
    assert store.read_suite("digits") is None
    assert store.damaged(KEY) == []
    assert not store.root.exists()


def test_only_chunks_of_randomised_models_have_a_column_of_single_draws() -> None:
    """Those of others are as they were before there was one."""
    for single in (True, False):
        _, content = pack(KEY, (0, 40), verdicts(0, 40, single=single), TIMING)
        assert ("robust_single" in pq.read_schema(pa.BufferReader(content)).names) is single
        assert (unpack(content, KEY, (0, 40))[0]["robust_single"] is not None) is single


def test_queries_come_back_and_chunks_without_them_are_as_they_were_before(store: Store) -> None:
    store.write_chunk(KEY, (0, 40), verdicts(0, 40, queries=True), TIMING)
    stored = store.read(KEY, 40)
    assert stored is not None
    assert_equal(stored[0], verdicts(0, 40, queries=True))
    _, content = pack(KEY, (0, 40), verdicts(0, 40), TIMING)
    assert not {"queries", "bad_queries"} & set(pq.read_schema(pa.BufferReader(content)).names)


def test_a_case_that_older_chunks_are_part_of_has_no_classes_and_no_queries(store: Store) -> None:
    for start, stop in chunk_ranges(2 * CHUNK_SIZE):
        store.write_chunk(KEY, (start, stop), verdicts(start, stop, classes=start > 0, queries=start > 0), TIMING)
    stored = store.read(KEY, 2 * CHUNK_SIZE)
    assert stored is not None
    assert stored[0].adversarial_class is None
    assert stored[0].queries is None
    assert len(stored[0].robust_any) == 2 * CHUNK_SIZE

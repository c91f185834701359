"""Packed verdicts: what goes in comes out, the same bytes every time, and damage is found."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attacks.errors import InputError
from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.report.score import score_suite
from benchmark.report.tables import write_tables
from benchmark.store.chunk import chunk_ranges
from benchmark.store.packed import gather, read_packed, write_packed
from benchmark.store.selection import show
from benchmark.store.shown import Shown
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key
from model_zoo.model_spec import ModelSpec

N = 300
TIMING = {"seconds": 1.25, "device": "cpu", "precision": "fp32", "batch_size": 250, "threads": 1, "versions": "torch=2"}
NATURAL = ModelSpec(
    "natural",
    suites=("digits",),
    dataset="digits",
    architecture="digits-cnn",
    defense="natural",
    checkpoint="digits/natural.safetensors",
    sha256="a" * 64,
)
MADRY = replace(NATURAL, name="madry", defense="madry", sha256="b" * 64)


def fill(store: Store) -> None:
    """Two models under three attacks, one without a last iterate, one by transfer, some of it rough."""
    draws = np.random.default_rng(0)
    label = draws.integers(0, 1000, N)
    grid = [
        (NATURAL, "fgsm", NATURAL),
        (NATURAL, "autoattack", NATURAL),
        (NATURAL, "fgsm", MADRY),
        (MADRY, "fgsm", MADRY),
        (MADRY, "foolbox-deepfool", MADRY),
    ]
    threat = ThreatModel("Linf", 8 / 255)
    cases = [EvalCase("digits", "digits", "c" * 64, N, m, s, ATTACKS[a], threat, 0) for m, a, s in grid]
    for number, case in enumerate(cases):
        prediction = np.where(draws.random(N) < 0.9, label, 999) if number % 2 else label
        robust = (prediction == label) & (draws.random(N) < 0.5)
        last = None if case.attack.name in ("autoattack", "foolbox-deepfool") else robust | (draws.random(N) < 0.01)
        classes = np.where((prediction == label) & ~robust, (label + 1 + np.arange(N) % 998) % 1000, -1)
        passes = draws.random(N) if case.attack.name == "foolbox-deepfool" else draws.integers(0, 9, N).astype(float)
        for start, stop in chunk_ranges(N):
            part = slice(start, stop)
            chunk = Verdicts(
                index=np.arange(N)[part] * 7,
                label=label[part],
                prediction=prediction[part],
                robust_any=robust[part],
                robust_last=None if last is None else last[part],
                forwards=passes[part],
                backwards=passes[part] / 2,
                robust_single=robust[part] & (label[part] % 3 > 0) if case.model is MADRY else None,
                adversarial_class=classes[part] if case.model is MADRY else None,
                queries=label[part] + 70_000 if number % 2 else None,
                bad_queries=label[part] if number % 2 else None,
            )
            store.write_chunk(case_key(case), (start, stop), chunk, {**TIMING, "threads": number // 4})
        flags = ["randomized"] if case.model is MADRY else []
        store.write_case(case_key(case), {"flags": flags, **({"zero_gradients": 2.5} if flags else {})})
    show(store, "digits", "last", cases, [(rank,) for rank in range(len(cases))])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "runs")
    fill(store)
    return store


def test_packed_verdicts_come_back_as_they_were(store: Store, tmp_path: Path) -> None:
    write_packed(gather(store, "digits"), tmp_path / "verdicts")
    packed, suite = read_packed(tmp_path / "verdicts.json"), score_suite(store, "digits")
    for entry in suite.entries:
        before, after = store.read(entry.key, N), packed.read(entry.key, N)
        assert before is not None
        assert after is not None
        optional = ("robust_last", "robust_single", "adversarial_class", "queries", "bad_queries")
        for name in ("index", "label", "prediction", "robust_any", *optional):
            np.testing.assert_array_equal(getattr(before[0], name), getattr(after[0], name), strict=True)
        assert before[0].forwards.sum() == after[0].forwards.sum()
        assert before[0].backwards.sum() == after[0].backwards.sum()


def test_the_tables_of_packed_verdicts_are_those_of_the_store_to_the_byte(store: Store, tmp_path: Path) -> None:
    write_packed(gather(store, "digits"), tmp_path / "verdicts")
    packed = read_packed(tmp_path / "verdicts.json")
    assert score_suite(packed, "digits").entries == score_suite(store, "digits").entries
    assert write_tables(score_suite(packed, "digits"), tmp_path / "a") == write_tables(
        score_suite(store, "digits"), tmp_path / "b"
    )
    names = {path.name for path in (tmp_path / "b").iterdir()} - {"timing.csv"}
    assert names >= {"scores.csv", "leaderboard.md", "black_box.md", "white_box.md"}
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_timing_stays_where_verdicts_come_packed_and_a_store_that_has_a_row_renews_it(
    store: Store, tmp_path: Path
) -> None:
    write_packed(gather(store, "digits"), tmp_path / "verdicts")
    packed = score_suite(read_packed(tmp_path / "verdicts.json"), "digits")
    assert packed.timing.empty
    path = tmp_path / "digits/timing.csv"
    write_tables(packed, path.parent)
    assert len(path.read_text().splitlines()) == 1  # nobody knows
    write_tables(score_suite(store, "digits"), path.parent)
    known = path.read_text()
    assert len(known.splitlines()) == len(packed.scores) + 1
    write_tables(packed, path.parent)
    assert path.read_text() == known
    path.write_text(known.replace("natural,fgsm,,2.5,", "natural,fgsm,,9.0,"))
    assert path.read_text() != known
    write_tables(score_suite(store, "digits"), path.parent)
    assert path.read_text() == known
    path.write_text("another,table\n1,2\n")
    write_tables(score_suite(store, "digits"), path.parent)
    assert path.read_text() == known


def test_packing_what_was_packed_gives_the_same_bytes(store: Store, tmp_path: Path) -> None:
    write_packed(gather(store, "digits", {"attack": "fgsm"}), tmp_path / "one")
    one = read_packed(tmp_path / "one.json")
    assert one.notes == {"attack": "fgsm"}
    write_packed(one, tmp_path / "two")
    write_packed(gather(one, "digits", one.notes), tmp_path / "three")
    for name in ("two", "three"):
        for suffix in (".json", ".bin"):
            assert (tmp_path / (name + suffix)).read_bytes() == (tmp_path / ("one" + suffix)).read_bytes()


def test_the_summary_has_a_line_a_case_and_no_time(store: Store, tmp_path: Path) -> None:
    write_packed(gather(store, "digits"), tmp_path / "verdicts")
    text = (tmp_path / "verdicts.json").read_text()
    lines = [json.loads(line.strip().rstrip(",")) for line in text.splitlines() if '"key"' in line]
    assert [line["attack"] for line in lines] == ["fgsm", "autoattack", "fgsm", "fgsm", "foolbox-deepfool"]
    first = score_suite(store, "digits").scores.iloc[0]
    assert lines[0]["correct"] == round(N * first["clean_acc"] / 100)
    assert lines[0]["robust_last"] == round(N * first["robust_acc_last"] / 100)
    assert "seconds" not in text


def test_an_empty_suite_packs(tmp_path: Path) -> None:
    write_packed(gather(Store(tmp_path / "runs"), "digits"), tmp_path / "verdicts")
    assert score_suite(read_packed(tmp_path / "verdicts.json"), "digits").scores.empty


def test_packed_verdicts_answer_for_their_own_suite_only(store: Store) -> None:
    packed = gather(store, "digits")
    assert packed.shown("mnist") == Shown()
    assert packed.read_case("f" * 32) is None
    assert packed.read("f" * 32, N) is None
    assert packed.read(next(iter(packed.cases)), N + 1) is None


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        (
            "verdicts.json",
            lambda data: data.replace(b'"robust": ', b'"robust": 1', 1),
            "unchanged since it was written",
        ),
        ("verdicts.json", lambda data: data[:-40], "expected the summary of packed verdicts"),
        ("verdicts.json", lambda _: b"[]", "expected the summary of packed verdicts"),
        ("verdicts.json", lambda _: b"\xff\xfe", "expected the summary of packed verdicts"),
        ("verdicts.json", None, "found none"),
        ("verdicts.bin", lambda data: data[:-1], "damaged or another"),
        ("verdicts.bin", lambda data: data[:50] + b"\0" + data[51:], "damaged or another"),
        ("verdicts.bin", None, "found none"),
    ],
)
def test_damage_is_named_in_one_line(store: Store, tmp_path: Path, name: str, damage: object, words: str) -> None:
    write_packed(gather(store, "digits"), tmp_path / "verdicts")
    path = tmp_path / name
    if callable(damage):
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    with pytest.raises(InputError, match=words) as caught:
        read_packed(tmp_path / "verdicts.json")
    assert "\n" not in str(caught.value)

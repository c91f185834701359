from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from attacks.errors import InputError
from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.report.compare import Found, Pair, compare, mcnemar, white_box, write_comparison
from benchmark.stats.shares import difference_interval
from benchmark.store.selection import show
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key
from model_zoo.model_spec import ModelSpec

N = 40
TIMING = {"seconds": 1.0, "device": "cpu", "precision": "fp32", "batch_size": 1, "threads": 1, "versions": ""}


def store_with(root: Path, robust: dict[str, list[int]], start: int = 0, epsilon: float = 0.1, n: int = N) -> Store:
    """Verdicts of some attacks on one model: each leaves the images of the given numbers standing."""
    store = Store(root)
    model = ModelSpec(
        "m",
        suites=("toy",),
        dataset="toy",
        architecture="digits-cnn",
        defense="natural",
        checkpoint="m.pt",
        sha256="0" * 64,
        paper="-",
    )
    for rank, (attack, standing) in enumerate(robust.items()):
        case = EvalCase(
            "toy", "toy", f"{n} images", n, model, model, ATTACKS[attack], ThreatModel("Linf", epsilon), seed=0
        )
        flags = np.isin(np.arange(n), standing)
        label, passes = np.zeros(n, dtype=np.int64), np.full(n, 10.0)
        verdicts = Verdicts(np.arange(n) + start, label, label, flags, None, passes, passes / 2)
        store.write_case(case_key(case), {"flags": []})
        store.write_chunk(case_key(case), (0, n), verdicts, TIMING)
        show(store, "toy", "any", [case], [(rank,)])
    return store


def found(store: Store) -> Found:
    return white_box(store, ["toy"])


def test_counts_differences_and_names_every_disagreement(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"apgd-ce": [0, 1, 2, 3], "pgd-100": [0, 1, 9, 10, 11]})
    table, disagreements = compare(found(store), found(store), ["toy"], [Pair("apgd-ce", "pgd-100")])
    (row,) = table.to_dict("records")
    assert (row["robust_acc"], row["against_acc"], row["difference"]) == (10.0, 12.5, -2.5)
    assert (row["first_only"], row["second_only"]) == (3, 2)
    assert row["p"] == mcnemar(3, 2)
    assert row["passes"] == "10 + 5"
    assert disagreements["image"].tolist() == [2, 3, 9, 10, 11]
    assert disagreements["broken_by"].tolist() == ["second"] * 2 + ["first"] * 3
    text = write_comparison(table, disagreements, tmp_path / "comparison")
    assert "| apgd-ce" in text
    assert {p.name for p in tmp_path.glob("comparison*")} == {
        "comparison.csv",
        "comparison.md",
        "comparison-disagreements.csv",
    }


def test_where_one_attack_saw_fewer_images_those_are_compared(tmp_path: Path) -> None:
    all_of_them = store_with(tmp_path / "a", {"apgd-ce": [0, 1, 2, 39]})
    few = store_with(tmp_path / "b", {"square": [1, 2, 3]}, n=10)
    for table, disagreements in (
        compare(found(all_of_them), found(few), ["toy"], [Pair("apgd-ce", "square")]),
        compare(found(few), found(all_of_them), ["toy"], [Pair("square", "apgd-ce")]),
    ):
        assert table["n"].tolist() == [10]
        assert table["robust_acc"].tolist() == table["against_acc"].tolist() == [30.0]
        assert disagreements["image"].tolist() == [0, 3]
    apart = store_with(tmp_path / "c", {"square": [1]}, start=N, n=10)
    with pytest.raises(InputError, match="differ in images"):
        compare(found(all_of_them), found(apart), ["toy"], [Pair("apgd-ce", "square")])


def test_one_attack_in_two_folders(tmp_path: Path) -> None:
    first = store_with(tmp_path / "a", {"apgd-ce": [0, 1]})
    second = store_with(tmp_path / "b", {"apgd-ce": [0]})
    table, disagreements = compare(found(first), found(second), ["toy"], [Pair("apgd-ce", "apgd-ce")])
    assert table["second_only"].tolist() == [1]
    assert disagreements["broken_by"].tolist() == ["second"]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    first = store_with(tmp_path / "a", {"apgd-ce": [0]})
    with pytest.raises(InputError, match="found none; run both first"):
        compare(found(first), found(first), ["toy"], [Pair("apgd-ce", "square")])
    with pytest.raises(InputError, match="differ in images; run both on the same"):
        compare(
            found(first),
            found(store_with(tmp_path / "b", {"apgd-ce": [0]}, start=1)),
            ["toy"],
            [Pair("apgd-ce", "apgd-ce")],
        )
    with pytest.raises(InputError, match="differ in epsilon"):
        compare(
            found(first),
            found(store_with(tmp_path / "c", {"apgd-ce": [0]}, epsilon=0.3)),
            ["toy"],
            [Pair("apgd-ce", "apgd-ce")],
        )


def test_mcnemar_is_the_binomial_tail() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 * 0.5**6)
    assert mcnemar(2, 7) == pytest.approx(2 * binom.cdf(2, 9, 0.5))


def test_the_interval_covers() -> None:
    """The true difference lies inside in at least 95% of draws from a known multinomial."""
    generator = np.random.default_rng(0)
    first, second, n = 0.03, 0.05, 500
    draws = generator.multinomial(n, [first, second, 1 - first - second], size=400)
    inside = [
        low <= 100 * (second - first) <= high for low, high in (difference_interval(a, b, n) for a, b, _ in draws)
    ]
    assert np.mean(inside) >= 0.95
    low, high = difference_interval(0, 0, n)
    assert -1.0 < low < 0 < high < 1.0

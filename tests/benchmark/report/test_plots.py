"""Pictures: the same verdicts give the same bytes, and nothing is drawn that was not measured."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmark.report.leaderboard import leaderboard
from benchmark.report.plots import _style, write_pictures
from benchmark.report.score import SuiteScores, score_suite
from benchmark.store.packed import read_packed

VERDICTS = Path(__file__).resolve().parents[3] / "results/verdicts/digits.json"
FEW = ("natural", "madry", "trades-b6")


@pytest.fixture(scope="module")
def suite() -> SuiteScores:
    """Three models of the committed verdicts, and what is crafted on them."""
    packed = read_packed(VERDICTS)
    cases = {
        key: case
        for key, case in packed.cases.items()
        if case.entry.model in FEW and case.entry.source_model in ("", *FEW)
    }
    return score_suite(replace(packed, cases=cases), "digits")


def without(suite: SuiteScores, attacks: tuple[str, ...]) -> SuiteScores:
    keep = [i for i, entry in enumerate(suite.entries) if entry.attack not in attacks and not entry.source_model]
    scores = suite.scores.iloc[keep].reset_index(drop=True)
    return replace(
        suite, scores=scores, entries=[suite.entries[i] for i in keep], judged=[suite.judged[i] for i in keep]
    )


CURVES = pd.DataFrame(
    [
        {"model": model, "attack": "pgd-20", "epsilon": epsilon, "n": 9, "robust_acc": 90 - 300 * epsilon}
        for model in FEW
        for epsilon in (0.0, 0.1, 0.2)
    ]
).assign(ci_low=0.0, ci_high=100.0)


def test_the_same_verdicts_give_the_same_bytes(suite: SuiteScores, tmp_path: Path) -> None:
    board = leaderboard(suite)
    for name in ("one", "two"):
        names = write_pictures(suite, board, CURVES, tmp_path / name)
        assert names == ["trade-off", "steps", "epsilon", "transfer", "classes"]
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert set(one) == {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}


def test_every_picture_is_one_and_is_not_empty(suite: SuiteScores, tmp_path: Path) -> None:
    write_pictures(suite, leaderboard(suite), CURVES, tmp_path)
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 200
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
    for path in tmp_path.glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_what_was_not_measured_is_not_drawn_and_old_pictures_of_it_go(suite: SuiteScores, tmp_path: Path) -> None:
    write_pictures(suite, leaderboard(suite), CURVES, tmp_path)
    fewer = without(suite, ("pgd-40", "pgd-100"))
    assert write_pictures(fewer, leaderboard(fewer), pd.DataFrame(), tmp_path) == ["trade-off", "classes"]
    assert {path.stem for path in tmp_path.iterdir()} == {"trade-off", "classes"}


def test_no_two_models_of_a_picture_look_the_same() -> None:
    looks = [(look["color"], look["marker"]) for look in map(_style, range(70))]
    assert len(set(looks)) == 70

"""Pictures: the same verdicts give the same bytes, and nothing is drawn that was not measured."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmark.report.figures import series_style
from benchmark.report.labels import spread
from benchmark.report.leaderboard import leaderboard
from benchmark.report.plots import _crowd, _steps, write_pictures
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
        assert names == ["trade-off", "steps", "epsilon", "queries", "transfer", "classes"]
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
    fewer = without(suite, ("pgd-40", "pgd-100", "square-500"))
    assert write_pictures(fewer, leaderboard(fewer), pd.DataFrame(), tmp_path) == ["trade-off", "classes"]
    assert {path.stem for path in tmp_path.iterdir()} == {"trade-off", "classes"}


def test_no_two_models_of_a_picture_look_the_same() -> None:
    looks = [(look["color"], look["marker"]) for look in map(series_style, range(70))]
    assert len(set(looks)) == 70


def test_names_beside_points_stand_in_their_order_and_apart() -> None:
    wanted = np.array([0.5, 0.1, 0.51, 0.52, 0.9])
    places = spread(wanted, 0.05)
    assert list(np.argsort(places)) == list(np.argsort(wanted))
    assert np.diff(np.sort(places)).min() >= 0.05 - 1e-9
    assert places[[1, 4]] == pytest.approx(wanted[[1, 4]])
    assert places[[0, 2, 3]].mean() == pytest.approx(wanted[[0, 2, 3]].mean())


def test_models_that_lie_apart_are_not_of_the_crowd() -> None:
    board = pd.DataFrame({"clean": [98.0, 98.2, 98.4, 98.6, 99.0], "worst case": [86.0, 87.0, 88.0, 85.0, 0.0]})
    assert list(_crowd(board)) == [True, True, True, True, False]


def test_convergence_is_what_fewer_steps_leave_above_the_most(suite: SuiteScores) -> None:
    figure = _steps(suite, leaderboard(suite))
    assert figure is not None
    (axes,) = figure.axes
    own = suite.scores[suite.scores["source_model"] == ""]
    cells = zip(own["model"], own["attack"], own["robust_acc"], strict=True)
    accuracy = {(model, attack): float(robust) for model, attack, robust in cells}
    drawn = {text.get_text().split(" (")[0]: line for text, line in zip(axes.texts, axes.lines, strict=True)}
    assert set(drawn) == set(FEW)
    for model, line in drawn.items():
        above = [accuracy[model, f"pgd-{steps}"] - accuracy[model, "pgd-100"] for steps in (20, 40, 100)]
        assert np.asarray(line.get_ydata()).tolist() == pytest.approx(above)

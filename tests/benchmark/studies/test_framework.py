"""Studies in general: what they leave behind, when they count as done, and what the command says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from attacks.errors import InputError
from benchmark.report.figures import new_figure
from benchmark.studies.registry import STUDIES
from benchmark.studies.store import is_done, study_folder, write_study
from benchmark.studies.study import Comparison, Inputs, Study, StudyResult, chosen_settings

FILES = ["figure.png", "figure.svg", "published.csv", "study.json", "study.md", "table.csv"]

LONG = {"half-half": "21 trainings of three minutes each on average"}
"""Studies of more than half an hour, and why."""


def compute(inputs: Inputs, *, n: int, width: float) -> StudyResult:
    table = pd.DataFrame({"place": range(n), "value": [width * place + inputs.seed for place in range(n)]})
    highest = float(table["value"].max())
    value = Comparison("highest value", published=2.0, measured=highest, n=n, source="nobody", why="another width")
    return StudyResult(table, [value], "Values rise.")


def draw(table: pd.DataFrame) -> Figure:
    figure, axes = new_figure(3, 2)
    axes.plot(table["place"], table["value"])
    return figure


LINE = Study(
    "line",
    compute=compute,
    draw=draw,
    settings={"n": 5, "width": 0.5},
    paper="none",
    summary="values rise",
    minutes=1,
)


def write(folder: Path, study: Study = LINE, **settings: float) -> None:
    used = {**study.settings, **settings}
    write_study(folder, study, used, 0, study.compute(Inputs(), **used))


def test_a_study_writes_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name)
    one, two = (study_folder(tmp_path / name, LINE) for name in ("one", "two"))
    assert sorted(path.name for path in one.iterdir()) == FILES
    assert [name for name in FILES if (one / name).read_bytes() != (two / name).read_bytes()] == []


def test_only_its_own_settings_seed_and_version_make_a_study_done(tmp_path: Path) -> None:
    assert not is_done(tmp_path, LINE)
    write(tmp_path)
    assert is_done(tmp_path, LINE)
    assert not is_done(tmp_path, LINE, seed=1)
    assert not is_done(tmp_path, replace(LINE, version=2))
    write(tmp_path, width=0.25)
    assert not is_done(tmp_path, LINE)


def test_a_study_that_is_killed_while_it_writes_is_not_done(tmp_path: Path) -> None:
    def killed(_: pd.DataFrame) -> Figure:
        raise KeyboardInterrupt

    write(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, replace(LINE, draw=killed))
    assert not is_done(tmp_path, LINE)


def test_the_page_says_what_agrees_and_why_something_does_not(tmp_path: Path) -> None:
    write(tmp_path)
    assert "1 of 1 agree" in (study_folder(tmp_path, LINE) / "study.md").read_text()
    write(tmp_path, width=0.25)
    page = (study_folder(tmp_path, LINE) / "study.md").read_text()
    assert "0 of 1 agree" in page
    assert "no: another width" in page
    assert "`python run_benchmark.py study line --set width=0.25`" in page


@pytest.mark.parametrize(
    ("relation", "measured", "agrees"),
    [
        ("=", 1.1, True),
        ("=", 0.8, False),
        ("<=", 0.2, True),
        ("<=", 1.2, False),
        (">=", 0.95, True),
        (">=", 0.8, False),
    ],
)
def test_a_measured_value_agrees_within_its_tolerance(relation: str, measured: float, agrees: bool) -> None:
    one = Comparison("x", published=1, measured=measured, relation=relation, within=0.15, n=1, source="nobody")
    assert one.agrees == agrees


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("n",), "takes KEY=VALUE"),
        (("m=3",), "unknown setting 'm'"),
        (("n=2.5",), "must be a whole number"),
        (("width=wide",), "must be a number"),
        (("width=0",), "must be positive"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen_settings(LINE, words)


def test_settings_are_replaced_by_those_that_are_given_and_the_last_counts() -> None:
    assert chosen_settings(LINE, ["width=1/4", "n=3", "n=4"]) == {"n": 4, "width": 0.25}


def test_the_command_computes_a_study_and_the_list_then_says_so(
    command: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.cli.study.STUDIES", {"line": LINE})
    where = ("--results-dir", tmp_path)
    assert "no" in str(command(tmp_path, "list", "studies", *where))
    assert "Values rise." in str(command(tmp_path, "study", "all", *where))
    assert (tmp_path / "studies/line/table.csv").is_file()
    assert "All 1 studies are done" in str(command(tmp_path, "study", "all", *where))
    assert "yes" in str(command(tmp_path, "list", "studies", *where))


def test_the_command_refuses_what_it_cannot_do_in_one_line(command: Callable[..., object], tmp_path: Path) -> None:
    assert "did you mean 'tradeoff-example'" in str(command(tmp_path, "study", "tradeof-example"))
    assert "--set is of one study" in str(command(tmp_path, "study", "all", "--set", "points=3"))


def test_every_study_names_its_paper_and_takes_minutes() -> None:
    assert [one.name for one in STUDIES.values() if "arXiv:" not in one.paper] == []
    assert {one.name for one in STUDIES.values() if not 0 < one.minutes <= 30} == set(LONG)

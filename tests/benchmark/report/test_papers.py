"""Published figures: the data, the suites by which they are measured, and the table that has both side by side."""

import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.cli import resolve_hardware
from benchmark.cli.options import Shared
from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from benchmark.report.papers import paper_table, papers_markdown
from benchmark.report.score import SuiteScores, score_suite
from benchmark.store.packed import Packed
from benchmark.store.selection import show
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key
from benchmark.suites.models import models_for
from benchmark.suites.paper_suites import PAPER_SUITES
from benchmark.suites.published import FIGURES, ROWS, STATES, UNMEASURED, Figure, Row
from benchmark.suites.registry import SUITES
from benchmark.suites.suite import Suite
from benchmark.training.settings import training_settings
from model_zoo.card import card
from model_zoo.defenses.registry import defense_spec
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import MODELS
from model_zoo.training.recipes import RECIPES

Command = Callable[..., subprocess.CompletedProcess[str]]

AUTHORS = next(spec for spec in MODELS if spec.name == "trades-mnist-zhang2019")
OURS = replace(AUTHORS, name="trades-b6", sha256="b" * 64, url="", schedule="fast recipe, 20 epochs")
TIMING = {"seconds": 1.0, "device": "cpu", "precision": "fp32", "batch_size": 250, "threads": 1, "versions": "torch=2"}


def measured(
    folder: Path, models: Sequence[ModelSpec], *, robust: int, n: int = 200, epsilon: float = 0.3
) -> SuiteScores:
    """Scores of trades-mnist: PGD-40 white-box, and the second model's examples on the first."""
    store, cases = Store(folder), []
    suite = SUITES["trades-mnist"]
    attack = suite.attack("pgd-40")
    assert attack is not None
    pairs = [(model, model) for model in models] + ([(models[0], models[1])] if len(models) > 1 else [])
    for model, source in pairs:
        case = EvalCase(suite.name, "mnist", "c" * 64, n, model, source, attack, ThreatModel("Linf", epsilon), 0)
        position = np.arange(n)
        verdicts = Verdicts(
            index=position,
            label=np.ones(n, dtype=np.int64),
            prediction=np.ones(n, dtype=np.int64),
            robust_any=position < robust - 1,
            robust_last=position < robust,
            forwards=np.ones(n),
            backwards=np.ones(n),
        )
        store.write_case(case_key(case), {"flags": []})
        store.write_chunk(case_key(case), (0, n), verdicts, TIMING)
        cases.append(case)
    show(store, suite.name, suite.reading, cases, [(rank,) for rank in range(len(cases))])
    return score_suite(store, suite.name)


# The data


def test_every_figure_has_a_row_a_source_and_a_known_state() -> None:
    known = {(row.suite, row.row) for row in ROWS}
    assert len(known) == len(ROWS)
    assert {(figure.suite, figure.row) for figure in FIGURES} == known
    for figure in FIGURES:
        assert 0 <= figure.published <= 100
        assert figure.source
        assert figure.state in STATES


def test_no_figure_is_there_twice() -> None:
    cells = [(figure.suite, figure.row, figure.attack, tuple(figure.crafted_on)) for figure in FIGURES]
    assert len(set(cells)) == len(cells)


def test_figures_that_the_project_promises_are_there() -> None:
    cells = {(figure.suite, figure.row, figure.attack): figure.published for figure in FIGURES if not figure.crafted_on}
    assert cells["trades-mnist", "TRADES, 1/lambda = 6", "clean"] == 99.48
    assert cells["trades-mnist", "TRADES, 1/lambda = 6", "pgd-40"] == 96.07
    assert cells["trades-mnist", "TRADES, 1/lambda = 6", "autoattack"] == 92.81
    assert cells["trades-table5", "TRADES, 1/lambda = 6", "pgd-20"] == 56.61
    assert cells["fat-table1", "FAT, epsilon 0.031", "pgd-20"] == 46.13
    assert cells["fat-table2", "TRADES, beta 6", "cw-linf"] == 54.47
    assert cells["gairat-table1", "GAIRAT, best checkpoint", "pgd-plus"] == 55.61
    assert cells["rst-table1", "RST_adv (50K+500K)", "pg-ours"] == 62.5
    assert cells["madry", "Madry, secret model", "pgd-20"] == 47.04


def test_figures_of_tables_that_no_suite_measures_are_there() -> None:
    cells = {(figure.suite, figure.row, figure.attack): figure for figure in FIGURES}
    published = {key: (figure.published, figure.std) for key, figure in cells.items()}
    assert published["trades-mnist", "SKC18, Defense-GAN", "ACW18 (adaptive)"] == (55, None)
    assert published["fat-table2", "FAT for TRADES, beta 6, epsilon 0.031", "fgsm"] == (61.79, 0.57)
    printed = "FAT for TRADES, beta 6, epsilon 0.031, as the slides print it"
    assert published["fat-table2", printed, "fgsm"] == (61.97, 0.57)
    assert published["rst-table1", "RST_adv (50K+500K)", "best attack"] == (62.5, 0.1)
    assert published["rst-table1", "Adversarial pre-training", "best attack"] == (57.4, None)
    assert published["gairat-table1", "GAIR-RST (50K+500K)", "clean"] == (89.8, None)
    assert published["gairat-table1", "GAIR-RST (50K+500K)", "AutoAttack (subset)"] == (60.9, None)
    assert published["certified-2-255", "RST_stab (50K+500K)", "certified"] == (63.8, 0.5)
    assert published["tsipras", "CIFAR-10, Linf 8/255, half-half", "PGD"] == (37.56, None)
    assert published["robust-transfer", "CIFAR-100 -> CIFAR-10, robust source", "PGD-20"] == (17.7, None)
    assert published["sgm", "Inception-V3, crafted on DenseNet-201", "SGM"] == (34.52, 0.23)
    assert published["unrestricted", "Bird-or-Bicycle, TRADESv2", "boundary attack"] == (95, None)
    assert published["ds-net", "DenseNet-121", "not stated"] == (49.93, None)
    assert published["fgsm-errors", "MNIST, maxout", "FGSM, epsilon 0.25"] == (10.6, None)
    assert {row.suite for row in ROWS} - set(SUITES) == set(UNMEASURED)


def test_rows_name_the_weights_that_were_published_and_who_trained_them() -> None:
    rows = {(row.suite, row.row): row for row in ROWS}
    assert "--defense gair-fat " in rows["gairat-table1", "GAIR-FAT, last checkpoint"].train
    published_last = [
        *(
            "trades-table5 TRADES, 1/lambda = 1",
            "trades-table5 TRADES, 1/lambda = 6",
            "trades-mnist TRADES, 1/lambda = 6",
        ),
        *(
            "fat-table1 FAT, epsilon 0.031",
            "fat-table2 TRADES, beta 6",
            "fat-table2 FAT for TRADES, beta 6, epsilon 0.062",
        ),
        "rst-table1 RST_adv (50K+500K)",
    ]
    for name in published_last:
        suite, _, row = name.partition(" ")
        assert rows[suite, row].models[-1].endswith("-last")
    assert "Wang et al. 2019" in rows["fat-table1", "AT (Madry)"].note
    assert "MadryLab" in rows["trades-table5", "MMS+18, Madry"].note
    assert "--recipe paper" in rows["trades-table5", "MMS+18, Madry"].train
    for name in ("KGB17, mixed batches", "ZSLG16, stability"):
        assert "released no settings" in rows["trades-table5", name].note


def test_slides_and_memory_are_not_passed_off_as_the_authors_page() -> None:
    state = {(figure.suite, figure.row, figure.attack): figure.state for figure in FIGURES}
    assert state["trades-table5", "RDV17, input gradients", "pgd-20"] == "unverified"
    assert state["rst-table1", "TRADES", "pg-ours"] == "lecture slides"
    assert state["fat-table1", "CAT", "fgsm"] == "authors' page"


@pytest.mark.parametrize("row", [row for row in ROWS if row.train], ids=lambda row: f"{row.suite} {row.row}")
def test_the_command_that_trains_a_row_is_understood(row: Row) -> None:
    words = shlex.split(row.train)
    options = dict(zip(words[::2], words[1::2], strict=True))
    overrides = [value for option, value in zip(words[::2], words[1::2], strict=True) if option == "--set"]
    dataset, recipe = SUITES[row.suite].dataset, options["--recipe"]
    assert RECIPES.keys() & {(options["--defense"], dataset, recipe), ("*", dataset, recipe)}
    defense, suite = defense_spec(options["--defense"]), SUITES[options["--suite"]]
    training_settings(defense, suite, options["--recipe"], [text for text in overrides if not text.startswith("pool=")])
    assert suite.dataset == SUITES[row.suite].dataset


@pytest.mark.parametrize("suite", PAPER_SUITES, ids=lambda suite: suite.name)
def test_a_paper_suite_has_rows_and_reads_the_last_iterate_of_all_images(suite: Suite) -> None:
    assert [row for row in ROWS if row.suite == suite.name]
    assert (suite.reading, suite.examples) == ("last", None)
    published = {figure.attack for figure in FIGURES if figure.suite == suite.name}
    assert {attack.name for attack in suite.attacks} <= published


SETTINGS = {
    ("trades-table5", "pgd-20"): (0.031, 20, 0.003, "none", 1),
    ("trades-mnist", "pgd-40"): (0.3, 40, 0.01, "none", 1),
    ("fat-table1", "fgsm"): (0.031, 1, 0.031, "uniform", 1),
    ("fat-table1", "pgd-20"): (0.031, 20, 0.031 / 4, "uniform", 1),
    ("fat-table1", "cw-linf"): (0.031, 30, 0.031 / 4, "uniform", 1),
    ("fat-table2", "pgd-20"): (0.031, 20, 0.003, "none", 1),
    ("fat-table2", "cw-linf"): (0.031, 30, 0.003, "none", 1),
    ("gairat-table1", "pgd-20"): (0.031, 20, 0.031 / 4, "uniform", 1),
    ("gairat-table1", "pgd-plus"): (0.031, 40, 0.01, "uniform", 5),
    ("rst-table1", "pg-trades"): (0.031, 20, 0.003, "none", 1),
    ("rst-table1", "pg-ours"): (0.031, 40, 0.01, "uniform", 5),
    ("madry", "pgd-20x10"): (8 / 255, 20, 2 / 255, "uniform", 10),
    ("madry-mnist", "pgd-100x50"): (0.3, 100, 0.01, "uniform", 50),
}


@pytest.mark.parametrize(("suite", "attack"), SETTINGS, ids=lambda name: name)
def test_settings_are_the_papers(suite: str, attack: str) -> None:
    epsilon, steps, step_size, start, restarts = SETTINGS[suite, attack]
    spec = SUITES[suite].attack(attack)
    assert spec is not None
    assert SUITES[suite].threat == ThreatModel("Linf", epsilon)
    assert (spec.steps, spec.restarts, spec.params["start"]) == (steps, restarts, start)
    assert spec.params["rel_step_size"] * epsilon == pytest.approx(step_size, rel=1e-12)
    assert spec.reads_last == (attack not in ("pgd-plus", "pg-ours"))
    assert spec.params["loss"] == ("margin" if attack == "cw-linf" else "cross-entropy")


def test_the_attack_of_the_published_trades_figure_has_kept_its_identity() -> None:
    spec = SUITES["trades-mnist"].attack("pgd-40")
    assert spec == ATTACKS["pgd-40"].with_settings(start="none", rel_step_size=0.01 / 0.3)


@pytest.mark.parametrize(
    ("suite", "asked", "expected"),
    [
        ("trades-mnist", "auto", torch.float32),
        ("trades-mnist", "bf16", torch.bfloat16),
        ("mnist", "auto", torch.bfloat16),
        ("mnist", "fp32", torch.float32),
    ],
)
def test_a_papers_suite_searches_in_float32_unless_told_otherwise(
    suite: str, asked: str, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attacks.precision.fastest_precision", lambda _: torch.bfloat16)
    shared = Shared(**{**dict.fromkeys(Shared.__dataclass_fields__), "precision": asked})  # type: ignore[arg-type]
    hardware = Hardware(torch.device("cpu"), torch.bfloat16 if asked == "bf16" else torch.float32, batch_size=1)
    image = Split("mnist", "test", torch.zeros(1, 1, 28, 28), torch.zeros(1).long(), torch.zeros(1).long(), 10)
    assert resolve_hardware.search_precision(hardware, SUITES[suite], image, shared) == expected


# The table


def test_the_authors_checkpoint_and_ours_stand_in_one_row_with_their_intervals(tmp_path: Path) -> None:
    table = paper_table(measured(tmp_path, [AUTHORS, OURS], robust=192))
    lines = table[
        (table["attack"] == "pgd-40") & (table["row"] == "TRADES, 1/lambda = 6") & (table["crafted_on"] == "")
    ]
    assert list(lines["model"]) == ["trades-mnist-zhang2019", "trades-b6"]
    first = lines.iloc[0]
    assert (first["published"], first["measured"], first["n"]) == (96.07, 96.0, 200)
    assert first["difference"] == pytest.approx(-0.07)
    assert (first["ci_low"], first["ci_high"]) == pytest.approx((92.31, 97.96), abs=0.01)  # Wilson's of 192 in 200
    assert first["inside"] == "yes"
    assert first["why"] == "200 of 10000 images"
    assert lines.iloc[1]["why"] == (
        "200 of 10000 images; not the authors' weights: fast recipe, 20 epochs; the best epoch, the paper's is the last"
    )


def test_a_published_value_outside_the_measured_interval_is_said_to_be(tmp_path: Path) -> None:
    table = paper_table(measured(tmp_path, [AUTHORS], robust=180))
    (line,) = table[(table["attack"] == "pgd-40") & table["measured"].notna()].to_dict("records")
    assert (line["measured"], line["inside"]) == (90.0, "no")


def test_transferred_examples_stand_beside_the_papers_black_box_figure(tmp_path: Path) -> None:
    madry = replace(OURS, name="madry", defense="madry", sha256="d" * 64)
    table = paper_table(measured(tmp_path, [AUTHORS, madry], robust=192))
    (line,) = table[(table["crafted_on"] == "madry") & table["measured"].notna()].to_dict("records")
    assert (line["model"], line["published"], line["state"]) == ("trades-mnist-zhang2019", 97.66, "unverified")


def test_a_figure_that_is_not_measured_has_the_command_that_would(tmp_path: Path) -> None:
    table = paper_table(measured(tmp_path, [AUTHORS], robust=192)).set_index(["row", "attack", "crafted_on"])
    command = table["command"]["MMS+18, Madry", "pgd-40", ""]
    assert command == (
        "python run_benchmark.py train --defense madry --suite mnist --recipe paper --name madry; "
        "python run_benchmark.py --suite trades-mnist --models madry --attacks pgd-40"
    )
    here = table["command"]["TRADES, 1/lambda = 6", "autoattack", ""]
    assert here == "python run_benchmark.py --suite trades-mnist --models trades-mnist-zhang2019 --attacks autoattack"
    assert np.isnan(table["measured"]["TRADES, 1/lambda = 6", "autoattack", ""])


def test_an_authors_file_that_is_not_here_is_named_with_where_to_get_it(tmp_path: Path) -> None:
    table = paper_table(measured(tmp_path, [replace(OURS, name="madry")], robust=192)).set_index("row")
    command = table["command"]["TRADES, 1/lambda = 6"].iloc[0]
    assert command == (
        "get model_mnist_smallcnn.pt from https://github.com/yaodongyu/TRADES as CHECKPOINTS/model_mnist_smallcnn.pt; "
        "python run_benchmark.py --suite trades-mnist --models trades-mnist-zhang2019 --checkpoint-dir CHECKPOINTS"
    )


def test_an_attack_that_is_not_in_the_project_keeps_its_published_figure(tmp_path: Path) -> None:
    rows = [Row("trades-mnist", "one", ["trades-b6"], "", "")]
    figures = [Figure("trades-mnist", "one", "ITA", [], 92.46, None, None, "a page", "unverified", "")]
    (line,) = paper_table(measured(tmp_path, [OURS], robust=192), rows, figures).to_dict("records")
    assert (line["published"], line["command"], line["why"]) == (92.46, "", "not in this project")


def test_steps_that_do_not_lead_across_the_ball_are_said_below_the_table() -> None:
    nothing = paper_table(score_suite(Packed("none", "last", {}), "none"))
    said = {suite.name: papers_markdown(nothing, suite.name) for suite in SUITES.values()}
    assert said["trades-mnist"].startswith("pgd-40: its 40 steps add up to 1.33 epsilon")
    assert "pgd-20: its 20 steps add up to 1.94 epsilon" in said["fat-table2"]
    assert "cw-linf" not in said["fat-table2"]
    assert not said["digits"]


def test_where_a_published_figure_was_looked_up_is_explained_below_the_table(tmp_path: Path) -> None:
    rows = [Row("trades-mnist", "one", ["trades-b6"], "", "")]
    figures = [Figure("trades-mnist", "one", "ITA", [], 92.46, None, None, "a page", "unverified", "")]
    text = papers_markdown(paper_table(measured(tmp_path, [OURS], robust=192), rows, figures), "trades-mnist")
    assert all(state in text.partition("state: ")[2] for state in STATES)


def test_figures_of_another_epsilon_are_not_compared_with(tmp_path: Path) -> None:
    assert paper_table(measured(tmp_path, [AUTHORS], robust=192, epsilon=0.2)).empty


def test_the_table_for_people_has_what_is_measured_and_what_is_not(tmp_path: Path) -> None:
    text = papers_markdown(paper_table(measured(tmp_path, [AUTHORS], robust=192)), "trades-mnist")
    above, below = text.split("Not measured here:")
    assert "| 96.07" in above
    assert "96.00 [92.31, 97.96]" in above
    assert "`python run_benchmark.py train --defense madry" in below


# Whose models a paper's suite judges


def test_a_papers_suite_judges_the_models_of_its_rows_that_the_leaderboard_of_its_dataset_has(tmp_path: Path) -> None:
    for name in ("madry", "natural", "another", "trades-b6"):
        spec = replace(OURS, name=name, suites=("mnist",), checkpoint=f"mnist/{name}.safetensors")
        (tmp_path / "mnist").mkdir(exist_ok=True)
        (tmp_path / f"mnist/{name}.json").write_bytes(card(spec, {}))
    wanted = {"madry", "natural", "trades-b6", "trades-mnist-zhang2019"}  # natural is crafted on
    assert set(models_for("trades-mnist", tmp_path)) == wanted
    assert set(models_for("mnist", tmp_path)) >= {*wanted, "another"}


def test_the_papers_of_a_suite_that_was_never_run_name_what_measures_each_figure(
    command: Command, tmp_path: Path
) -> None:
    result = command(tmp_path, "table", "--papers")
    assert result.returncode == 2  # there are no verdicts to rebuild other tables from
    table = pd.read_csv(tmp_path / "results/mine/gairat-table1/papers.csv", keep_default_na=False)
    last = table[(table["row"] == "GAIRAT, last checkpoint") & (table["attack"] == "pgd-20")].iloc[0]
    assert last["measured"] == ""
    assert "train --defense gairat" in last["command"]
    assert "--recipe paper --name gairat;" in last["command"]
    assert "--models gairat-last " in last["command"]
    madry = table[(table["row"] == "AT, best checkpoint") & (table["attack"] == "pgd-20")].iloc[0]
    assert "--recipe gairat-table1 --name madry;" in madry["command"]
    mixed = (tmp_path / "results/mine/trades-table5/papers.md").read_text()
    assert "--name mixed; python run_benchmark.py --suite trades-table5 --models mixed`; TRADES's authors" in mixed
    assert "certified at Linf 2/255" in (tmp_path / "results/mine/certified-2-255/papers.md").read_text()
    borrowed = pd.read_csv(tmp_path / "results/mine/cifar10/papers.csv", keep_default_na=False)
    assert any("--models robustbench/Rice2020Overfitting " in words for words in borrowed["command"])

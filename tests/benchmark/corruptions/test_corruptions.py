"""Common corruptions: the same of an image wherever it stands, resumed like everything else, and tabled as defined."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from attacks.errors import InputError
from attacks.spec import CHUNK_SIZE
from benchmark.corruptions.cases import cases_of, corruption_and_severity, corruption_store, name_of, rank_of
from benchmark.corruptions.images import COMMON, CORRUPTIONS, EXTRA, SEVERITIES, corrupted, require_library
from benchmark.data.split import Split
from benchmark.report.corruptions import corruption_table, summary_table, write_corruptions
from benchmark.report.score import SuiteScores, score_suite
from benchmark.store.selection import show
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key
from benchmark.suites.registry import SUITES
from model_zoo.model_spec import ModelSpec

library = pytest.importorskip("imagecorruptions", reason="imagecorruptions-imaug is not installed")
QUICK = [name for name in CORRUPTIONS if name != "glass_blur"]
"""glass_blur is compiled at its first call, which takes a while."""


def images(n: int = 3, channels: int = 3, size: int = 32) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_they_are_those_of_the_library_15_common_ones_and_4_more() -> None:
    assert list(COMMON) == library.get_corruption_names("common")
    assert list(EXTRA) == library.get_corruption_names("validation")


@pytest.mark.parametrize("corruption", QUICK)
def test_a_corrupted_image_depends_on_its_index_and_not_on_its_place_in_a_batch(corruption: str) -> None:
    x, index = images(), torch.tensor([4, 7, 9])
    state = np.random.get_state()[1].copy()  # type: ignore[index]
    made = corrupted(x, index, corruption, 3, seed=1)
    alone = corrupted(x[1:2], index[1:2], corruption, 3, seed=1)
    assert made.shape == x.shape
    assert made.min() >= 0
    assert made.max() <= 1
    assert torch.equal(made[1:2], alone)
    assert not torch.equal(made, (x * 255).round() / 255)
    assert np.array_equal(np.random.get_state()[1], state)  # type: ignore[index]


def test_noise_is_drawn_by_seed_index_and_severity() -> None:
    x = images(1).expand(2, -1, -1, -1)
    first = corrupted(x, torch.tensor([0, 1]), "gaussian_noise", 1, seed=0)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, corrupted(x, torch.tensor([0, 1]), "gaussian_noise", 1, seed=1))


def test_what_the_library_makes_of_a_picture_is_what_comes_back() -> None:
    x = (images(1) * 255).round() / 255
    picture = (x[0] * 255).round().byte().permute(1, 2, 0).numpy()
    expected = library.corrupt(picture, corruption_name="contrast", severity=2)
    made = corrupted(x, torch.tensor([0]), "contrast", 2, seed=0)
    assert np.array_equal((made[0] * 255).round().byte().permute(1, 2, 0).numpy(), expected)


def test_an_image_of_28_pixels_is_padded_by_black_and_cut_again_and_grey_stays_grey() -> None:
    x = (images(1, 1, 28) * 255).round() / 255
    made = corrupted(x, torch.tensor([0]), "pixelate", 1, seed=0)
    assert made.shape == x.shape
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    whole = corrupted(padded, torch.tensor([0]), "pixelate", 1, seed=0)
    assert torch.equal(made, whole[:, :, 2:30, 2:30])


def test_other_images_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="at least 28 x 28 pixels, got 1 x 8 x 8"):
        corrupted(images(1, 1, 8), torch.tensor([0]), "fog", 1, seed=0)

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(InputError, match=r"need the library imagecorruptions-imaug; pip install '\.\[corruptions\]'"):
        require_library()


# --- Cases and tables -------------------------------------------------------------------------------------------------

MODEL = ModelSpec(
    "m",
    suites=("mnist",),
    dataset="mnist",
    architecture="small-cnn",
    defense="natural",
    checkpoint="m.pt",
    sha256="0" * 64,
    paper="-",
)


def cases(corruptions: tuple[str, ...], seed: int = 0) -> list[EvalCase]:
    split = Split("mnist", "test", images(4, 1, 28), torch.zeros(4, dtype=torch.int64), torch.arange(4), 10)
    return cases_of(SUITES["mnist"], [MODEL], split, corruptions, seed=seed)


def test_a_case_is_identified_by_corruption_severity_seed_and_library() -> None:
    found = cases(("fog", "snow"))
    assert [case.attack.name for case in found[:3]] == ["clean", "fog-1", "fog-2"]
    assert len({case_key(case) for case in found}) == len(found) == 11
    assert {case_key(case) for case in found}.isdisjoint(case_key(case) for case in cases(("fog", "snow"), seed=1))
    assert found[1].attack.identity["library"].startswith("imagecorruptions-imaug 1.")
    ranks = [rank_of(case, ["m"]) for case in found]
    assert sorted(ranks) == [ranks[0], *ranks[6:], *ranks[1:6]]  # snow before fog, as in the papers
    assert corruption_and_severity(name_of("jpeg_compression", 4)) == ("jpeg_compression", 4)


def stored(root: Path, right: dict[str, list[int]], corruptions: tuple[str, ...]) -> SuiteScores:
    """Four images; under each case those of these indices are classified correctly."""
    store, made = Store(root), cases(corruptions)
    for case in made:
        correct = np.isin(np.arange(4), right.get(case.attack.name, [0, 1]))
        label, passes = np.zeros(4, dtype=np.int64), np.ones(4)
        verdicts = Verdicts(np.arange(4), label, np.where(correct, 0, 5), correct, None, passes, passes)
        store.write_case(case_key(case), {"flags": []})
        timing = {"seconds": 1.0}
        store.write_chunk(case_key(case), (0, 4), verdicts, timing)
    show(store, "mnist", "any", made, [rank_of(case, ["m"]) for case in made])
    return score_suite(store, "mnist")


def test_the_mean_error_is_over_all_types_and_severities_and_the_worst_needs_every_one(tmp_path: Path) -> None:
    right = {"clean": [0, 1, 2], "fog-1": [0, 3], "snow-2": [0, 1, 2, 3], "spatter-5": []}
    suite = stored(tmp_path, right, CORRUPTIONS)
    (row,) = summary_table(suite).to_dict("records")
    # of the 75 cases of the 15 common types one has all four right, all others two
    assert row["mean error"] == pytest.approx(100 - (74 * 50 + 100) / 75)
    assert (row["clean"], row["worst"], row["n"]) == (75.0, 25.0, 4)  # image 0 alone; spatter is no common type
    table = corruption_table(suite).set_index(["corruption", "severity"])
    assert len(table) == 1 + len(CORRUPTIONS) * len(SEVERITIES)
    assert table.loc[("fog", 1), "accuracy"] == 50.0
    assert table.loc[("spatter", 5), "accuracy"] == 0.0


def test_without_all_common_types_there_is_no_mean_error(tmp_path: Path) -> None:
    suite = stored(tmp_path / "store", {}, ("fog",))
    (row,) = summary_table(suite).to_dict("records")
    assert row["clean"] == 50.0
    assert pd.isna(row["mean error"])
    assert pd.isna(row["worst"])
    write_corruptions(suite, tmp_path)
    before = (tmp_path / "corruptions.md").read_bytes()
    write_corruptions(suite, tmp_path)
    assert (tmp_path / "corruptions.md").read_bytes() == before
    assert b"| fog " in before


def test_a_run_is_resumed_where_it_was_left_and_table_makes_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmark.corruptions import run
    from benchmark.evaluation.hardware import Hardware
    from benchmark.evaluation.model_checks import Checked
    from benchmark.report.publish import rebuild_tables

    n = CHUNK_SIZE + 3
    x = images(n, 1, 28)
    split = Split("mnist", "test", x, (x.mean((1, 2, 3)) > 0.5).long(), torch.arange(n), 10)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)).eval()
    monkeypatch.setattr(run, "load_on", lambda *_: model)
    checked = Checked(torch.zeros(n), (), None)
    monkeypatch.setattr(run, "check_model", lambda *_, **__: checked)
    monkeypatch.setattr(run, "check_images", lambda _: None)
    asked: list[str] = []

    def counted(x: Tensor, index: Tensor, corruption: str, severity: int, *, seed: int) -> Tensor:
        asked.append(name_of(corruption, severity))
        if len(asked) == stop_at:
            raise KeyboardInterrupt
        return corrupted(x, index, corruption, severity, seed=seed)

    monkeypatch.setattr(run, "corrupted", counted)
    store, hardware = corruption_store(tmp_path), Hardware(torch.device("cpu"), torch.float32, batch_size=64)

    def go(store: Store) -> None:
        store.open()
        run.corrupt_models(SUITES["mnist"], [MODEL], ["contrast"], split, store, hardware, seed=0, quiet=True)

    stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        go(store)
    stop_at = -1
    go(store)
    assert len(asked) == 1 + 2 * len(SEVERITIES)  # the one that was interrupted is made again, no other
    write_corruptions(score_suite(store, "mnist"), tmp_path / "mnist")
    files = {name: (tmp_path / "mnist" / name).read_bytes() for name in ("corruptions.csv", "corruptions.md")}
    again = corruption_store(tmp_path / "again")
    go(again)
    write_corruptions(score_suite(again, "mnist"), tmp_path / "again/mnist")
    assert files == {name: (tmp_path / "again/mnist" / name).read_bytes() for name in files}
    for name in files:
        (tmp_path / "mnist" / name).unlink()
    rebuild_tables(tmp_path)
    assert files == {name: (tmp_path / "mnist" / name).read_bytes() for name in files}
    shutil.rmtree(tmp_path / "runs")  # as in a fresh clone
    for name in files:
        (tmp_path / "mnist" / name).unlink()
    rebuild_tables(tmp_path)
    assert files == {name: (tmp_path / "mnist" / name).read_bytes() for name in files}
    asked.clear()
    go(again)
    assert asked == []

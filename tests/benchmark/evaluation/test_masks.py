"""Eleven masks on an undefended model: each is flagged, or hides nothing. All attacks: `measure_masks.py`."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.report.flags import name_of

Command = Callable[..., subprocess.CompletedProcess[str]]
HIDES_NOTHING = 1.0
"""Points that a mask's numbers may be above those of the unmasked model."""
MASKS = Path(__file__).resolve().parents[2] / "programs/masks.py"
FLAGGED = {
    "sign_flipped": "black-box-beats-gradients",
    "permuted": "transfer-beats-white-box",
    "sine": "transfer-beats-white-box",
    "dark": "",
    "rounding": "zero-gradients",
    "logits_x30": "",
    "logits_x300": "",
    "straight_through": "",
    "purified_at_test": "dynamic",
    "detached": "transfer-beats-white-box",
    "noise": "randomized",
}
"""Each mask, and a flag that it must have; else it may hide nothing instead."""
EXAMPLES = {"noise": "20"}  # each of its queries is the mean of twenty passes
HIDE_NOTHING = ("logits_x30", "logits_x300", "straight_through")
"""Masks that an attack must see through."""


def evaluated(command: Command, folder: Path, name: str, *words: str) -> tuple[Any, list[str]]:
    """The leaderboard's row of a mask under a part of the default attacks, and its flags without their figures."""
    run = command(
        folder,
        *("--model", f"{MASKS}:{name}", "--examples", EXAMPLES.get(name, "100"), "--workers", "1", "--quiet"),
        *("--attacks", "pgd-20,pgd-100,square-500", *words),
    )
    assert run.returncode == 0, run.stderr
    (row,) = pd.read_csv(folder / "results/mine/digits/leaderboard.csv", keep_default_na=False).to_dict("records")
    return row, [name_of(flag) for flag in row["flags"].split()]


@pytest.fixture(scope="module")
def unmasked(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Any:
    row, flags = evaluated(command, tmp_path_factory.mktemp("unmasked"), "unmasked")
    assert flags == []
    return row


@pytest.mark.parametrize("mask", list(FLAGGED))
def test_a_mask_is_flagged_or_hides_nothing(command: Command, tmp_path: Path, unmasked: Any, mask: str) -> None:
    row, flags = evaluated(command, tmp_path, mask)
    hidden = [row[column] - unmasked[column] for column in ("worst case", "pgd-100")]
    assert (flags and mask not in HIDE_NOTHING) or max(hidden) <= HIDES_NOTHING
    assert FLAGGED[mask] in ("", *flags)


@pytest.mark.parametrize("mask", ["rounding", "straight_through"])
def test_a_search_in_bfloat16_is_misled_by_no_more_than_one_in_float32(
    command: Command, tmp_path: Path, mask: str
) -> None:
    rows = []
    for precision in ("fp32", "bf16"):
        (folder := tmp_path / precision).mkdir()
        rows.append(evaluated(command, folder, mask, "--precision", precision)[0])
    exact, fast = rows
    assert abs(fast["worst case"] - exact["worst case"]) <= HIDES_NOTHING


def test_a_users_own_model_is_attacked_from_the_undefended_one_which_is_no_row(
    command: Command, tmp_path: Path
) -> None:
    words = ("--model", f"{MASKS}:unmasked", "--examples", "20", "--workers", "1", "--attacks", "pgd-20,fgsm")
    assert command(tmp_path, *words, "--quiet").returncode == 0
    scores = pd.read_csv(tmp_path / "results/mine/digits/scores.csv", keep_default_na=False)
    assert set(scores["model"]) == {"unmasked"}
    assert list(
        scores[scores["source_model"] != ""][["attack", "source_model"]].itertuples(index=False, name=None)
    ) == [("pgd-20", "natural")]

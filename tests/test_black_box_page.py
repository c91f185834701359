"""No model of a committed board is below its worst case in any tier, and the page of black box has the gaps."""

from pathlib import Path

import pandas as pd
import pytest

from benchmark.report.tiers import BLACK_BOX, TIERS

ROOT = Path(__file__).parents[1]
BOARDS = sorted((ROOT / "results").glob("*/leaderboard.csv"))
WITH_TIERS = [board.parent for board in BOARDS if (board.parent / "tiers.csv").exists()]
ROUNDING = 1e-3


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.parent.name)
def test_without_gradients_no_model_is_below_its_worst_case(board: Path) -> None:
    rows = pd.read_csv(board)
    assert len(rows)
    if BLACK_BOX in rows:
        known = rows[rows[BLACK_BOX].notna()]
        assert (known[BLACK_BOX] >= known["worst case"] - ROUNDING).all()


@pytest.mark.parametrize("folder", WITH_TIERS, ids=lambda folder: folder.name)
def test_no_tier_is_below_the_worst_case_and_the_gap_is_what_lies_between(folder: Path) -> None:
    tiers = pd.read_csv(folder / "tiers.csv")
    own = [name for name in TIERS if name in tiers]
    assert own
    for name in own:
        known = tiers[tiers[name].notna()]
        assert (known[name] >= known[BLACK_BOX] - ROUNDING).all()
    assert (tiers[BLACK_BOX] >= tiers["worst case"] - ROUNDING).all()
    if "gap" in tiers:
        known = tiers[tiers["gap"].notna()]
        assert ((known[BLACK_BOX] - known["worst case"] - known["gap"]).abs() <= ROUNDING).all()
    board = pd.read_csv(folder / "leaderboard.csv").set_index("model")
    for column in (BLACK_BOX, "worst case"):
        assert (board.loc[tiers["model"], column].to_numpy() - tiers[column]).abs().max() <= ROUNDING


def test_the_page_has_the_gaps_of_all_boards() -> None:
    page, lines = (ROOT / "docs/black-box.md").read_text(encoding="utf-8"), []
    for folder in WITH_TIERS:
        tiers = pd.read_csv(folder / "tiers.csv")
        if "gap" not in tiers:  # under rotations and shifts there is no attack with gradients
            continue
        gaps = tiers["gap"].dropna()
        figures = " | ".join(f"{value:.1f}" for value in (gaps.min(), gaps.median(), gaps.max()))
        lines.append(f"| [{folder.name}](../results/{folder.name}/tiers.md) | {len(gaps)} | {figures} |")
    missing = [line for line in lines if line not in page]
    assert not missing, "docs/black-box.md lacks these lines of its table:\n" + "\n".join(missing)

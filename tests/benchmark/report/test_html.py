"""The HTML leaderboard: self-contained; in a real browser it sorts, filters, opens, and shows the CSV's numbers."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.report.html import page as write_page
from benchmark.report.leaderboard import leaderboard
from benchmark.report.papers import paper_table
from benchmark.report.score import score_suite
from benchmark.report.tables import write_tables
from benchmark.store.packed import read_packed

VERDICTS = Path(__file__).resolve().parents[3] / "results/verdicts/digits.json"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTHS = {"wide": 1400, "narrow": 390}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of the committed verdicts."""
    folder = tmp_path_factory.mktemp("tables")
    write_tables(score_suite(read_packed(VERDICTS), "digits"), folder)
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium: the system's, that of $CHROMIUM, or playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium here: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest, chromium: Any, folder: Path) -> Iterator[Any]:
    """The leaderboard, open, wide and narrow, without a network; an error in its script is an error here."""
    context = chromium.new_context(viewport={"width": WIDTHS[request.param], "height": 900}, offline=True)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto((folder / "leaderboard.html").as_uri())
    yield page
    assert errors == []
    context.close()


def shown(page: Any) -> list[str]:
    return [row.get_attribute("data-model") for row in page.query_selector_all("#board tr.row")]


def test_the_page_loads_nothing_from_elsewhere(folder: Path) -> None:
    text = (folder / "leaderboard.html").read_text()
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)", text)
    assert not re.findall(r"https?://|@import|url\(", text)


def test_the_table_is_there_without_scripts(chromium: Any, folder: Path) -> None:
    context = chromium.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((folder / "leaderboard.html").as_uri())
    rows = page.query_selector_all("tbody tr")
    models = list(pd.read_csv(folder / "leaderboard.csv")["model"])
    assert [row.query_selector_all("td")[1].inner_text() for row in rows] == models
    assert not page.is_visible("form")
    context.close()


def test_no_text_can_break_out_of_the_data(folder: Path) -> None:
    suite = score_suite(read_packed(VERDICTS), "digits")
    hostile = "</script><script>document.title = 'mine'</script>"
    nothing: dict[str, bytes] = {}
    board, papers = leaderboard(suite), paper_table(suite)
    text = write_page(suite, board, papers, what="", reading="", legend=hostile, triples=nothing)
    assert hostile not in text
    data = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert json.loads(data)["legend"] == hostile
    assert len(json.loads(data)["rows"]) == len(pd.read_csv(folder / "leaderboard.csv"))


def test_it_begins_with_the_order_of_the_leaderboard(page: Any, folder: Path) -> None:
    assert shown(page) == list(pd.read_csv(folder / "leaderboard.csv")["model"])


def test_a_click_on_a_column_sorts_by_it_and_a_second_one_turns_it_round(page: Any, folder: Path) -> None:
    clean = pd.read_csv(folder / "leaderboard.csv").set_index("model")["clean"]
    head = page.get_by_role("columnheader", name="clean", exact=True)
    head.get_by_role("button").click()
    assert [clean[model] for model in shown(page)] == sorted(clean, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").click()
    assert [clean[model] for model in shown(page)] == sorted(clean)


def test_the_filter_keeps_what_matches(page: Any, folder: Path) -> None:
    board = pd.read_csv(folder / "leaderboard.csv", keep_default_na=False)
    page.fill("#filter", "trades")
    matching = [str(line.model) for line in board.itertuples() if "trades" in f"{line.model} {line.defense}"]
    assert shown(page) == matching
    assert page.inner_text("#count") == f"{len(matching)} of {len(board)} models"
    page.fill("#filter", "")
    page.check("#plain")
    assert shown(page) == list(board[board["flags"] == ""]["model"])


def test_a_row_opens_to_its_attacks_with_the_numbers_of_the_csv_and_closes_again(page: Any, folder: Path) -> None:
    scores = pd.read_csv(folder / "scores.csv", keep_default_na=False)
    own = scores[scores["model"] == "gairat"]
    page.locator("tr.row[data-model=gairat]").get_by_role("button").click()
    lines = page.locator("tr.details tbody").first.locator("tr").all()
    assert len(lines) == len(own)
    for line, score in zip(lines, own.to_dict("records"), strict=True):
        cells = [cell.inner_text().strip() for cell in line.locator("td").all()]
        assert cells[:4] == [
            score["attack"],
            score["source_model"] or "itself",
            str(score["n"]),
            f"{score['robust_acc']:.2f}",
        ]
        assert cells[4] == f"{score['ci_low']:.2f}-{score['ci_high']:.2f}"
        assert cells[7:] == [f"{score['forwards_per_image']:.0f}", f"{score['backwards_per_image']:.0f}"]
    assert "pgd-overestimates(17.4): PGD-100 leaves this many points more standing" in page.inner_text("tr.details")
    page.locator("tr.row[data-model=gairat]").get_by_role("button").click()
    assert page.locator("tr.details").count() == 0


def test_an_interval_is_drawn_where_its_numbers_are(page: Any, folder: Path) -> None:
    line = pd.read_csv(folder / "leaderboard.csv").set_index("model").loc["madry"]
    drawn = page.locator("tr.row[data-model=madry] .interval").first
    frame, band = drawn.bounding_box(), drawn.locator("i").bounding_box()
    assert (band["x"] - frame["x"]) / frame["width"] * 100 == pytest.approx(line["ci_low"], abs=1)
    assert (band["x"] + band["width"] - frame["x"]) / frame["width"] * 100 == pytest.approx(line["ci_high"], abs=1)


def test_the_window_itself_never_scrolls_sideways(page: Any) -> None:
    closed = page.locator("#board").bounding_box()["width"]
    page.locator("tr.row").first.get_by_role("button").click()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("#board").bounding_box()["width"] == closed  # what opens scrolls in itself


def test_a_flag_is_explained_on_hover(chromium: Any, folder: Path) -> None:
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    page.goto((folder / "leaderboard.html").as_uri())
    flag = page.locator("tr.row[data-model=gairat] .flag")
    assert flag.evaluate("one => getComputedStyle(one, '::after').content") == "none"
    flag.hover()
    assert "a sign of masked gradients" in flag.evaluate("one => getComputedStyle(one, '::after').content")
    page.close()

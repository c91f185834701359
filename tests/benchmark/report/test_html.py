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

from benchmark.report.broken import broken_images
from benchmark.report.html import axis
from benchmark.report.html import page as write_page
from benchmark.report.leaderboard import leaderboard
from benchmark.report.papers import paper_table
from benchmark.report.score import score_suite
from benchmark.report.tables import write_tables
from benchmark.store.packed import read_packed

VERDICTS = Path(__file__).resolve().parents[3] / "results/verdicts/digits.json"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTHS = {"wide": 1400, "middle": 1000, "phone": 390}


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
    """The leaderboard at each width, without a network; an error in its script is an error here."""
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


def test_a_row_opens_to_the_images_that_broke(page: Any) -> None:
    found = broken_images(score_suite(read_packed(VERDICTS), "digits"), "natural")
    page.locator("tr.row[data-model=natural]").get_by_role("button").click()
    assert f"{found.count} of {found.n} images" in page.inner_text("tr.details")
    assert f"{len(found.listed)} of them, evenly spread, are listed" in page.inner_text("tr.details")
    lines = page.locator("tr.details table").nth(1).locator("tbody tr").all()
    assert len(lines) == len(found.listed) == 200
    index, label, taken_for, _, by = found.listed[0]
    cells = [cell.inner_text() for cell in lines[0].locator("td").all()]
    assert cells[:3] == [str(index), str(label), str(taken_for)]
    assert cells[4].startswith(f"{by} of ")


def test_an_interval_has_its_numbers_and_is_drawn_where_they_are_on_its_axis(page: Any, folder: Path) -> None:
    board = pd.read_csv(folder / "leaderboard.csv").set_index("model")
    line = board.loc["madry"]
    first, last = axis(zip(board["ci_low"], board["worst case"], board["ci_high"], strict=True))
    assert page.locator("#board > thead .axis").inner_text().split() == [str(first), str(last)]
    drawn = page.locator("tr.row[data-model=madry] .interval").first
    assert drawn.locator("..").inner_text().strip() == f"{line['ci_low']:.2f}-{line['ci_high']:.2f}"
    frame, band = drawn.bounding_box(), drawn.locator("i").bounding_box()
    ends = (band["x"] - frame["x"], band["x"] + band["width"] - frame["x"])
    drawn_at = [first + (last - first) * end / frame["width"] for end in ends]
    assert drawn_at == pytest.approx([line["ci_low"], line["ci_high"]], abs=1)


def test_an_axis_fits_the_data_and_lone_models_do_not_stretch_it() -> None:
    close = [(84.2, 86.0, 87.9), (85.4, 87.2, 88.8), (86.1, 88.0, 89.6), (90.9, 92.7, 94.2)]
    assert axis(close) == (80, 95)
    assert axis([*close, (0.0, 0.0, 0.4)]) == (80, 95)
    assert axis([(0.0, 0.0, 0.4)]) == (0, 5)
    assert axis([(99.6, 100.0, 100.0)]) == (95, 100)


def test_what_lies_beyond_the_axis_is_an_arrow(chromium: Any, folder: Path, tmp_path: Path) -> None:
    text = (folder / "leaderboard.html").read_text()
    moved, (content, changes) = (
        tmp_path / "moved.html",
        re.subn(r'"axis":\[0,80\],"rows"', '"axis":[50,80],"rows"', text),
    )
    assert changes == 1
    moved.write_text(content)
    page = chromium.new_page()
    page.goto(moved.as_uri())
    assert page.locator("tr.row[data-model=natural] .interval.outside").count() == 1
    assert page.locator("tr.row[data-model=ibp] .interval.outside").count() == 0
    page.close()


def test_every_column_can_be_reached_beside_the_models(page: Any) -> None:
    frame = page.locator(".scroll").bounding_box()
    for place in range(2, page.locator("#board > thead th").count()):
        head = page.locator("#board > thead th").nth(place)
        head.evaluate("""head => { const box = head.closest(".scroll"), model = head.parentElement.children[1];
            box.scrollLeft = head.offsetLeft - model.offsetWidth; }""")
        column, model = head.bounding_box(), page.locator("#board > thead th").nth(1).bounding_box()
        assert column["x"] >= model["x"] + model["width"] - 2
        assert column["x"] + column["width"] <= frame["x"] + frame["width"] + 2


def test_the_head_and_the_models_stay_in_place_and_shadows_say_that_there_is_more(page: Any) -> None:
    wait = "all => all.every(([name, on]) => document.querySelector('.frame').classList.contains(name) === on)"

    def shadows(**classes: bool) -> None:
        page.wait_for_function(wait, arg=list(classes.items()), timeout=5000)

    box, head = page.locator(".scroll"), page.locator("#board > thead th").nth(1)
    is_wider = box.evaluate("one => one.scrollWidth > one.clientWidth + 1")
    shadows(scrolled=False, lowered=False, more=is_wider)
    top = head.bounding_box()["y"]
    box.evaluate("one => one.scrollTo(one.scrollWidth, 300)")
    shadows(scrolled=is_wider, lowered=True, more=False)
    assert head.bounding_box()["y"] == pytest.approx(top, abs=1)
    cell = page.locator("tr.row td:nth-child(2)").nth(20).bounding_box()
    assert box.bounding_box()["x"] <= cell["x"]
    assert cell["x"] + cell["width"] <= box.bounding_box()["x"] + box.bounding_box()["width"]


def test_a_phone_shows_the_worst_case_and_its_interval_first(chromium: Any, folder: Path) -> None:
    page = chromium.new_page(viewport={"width": 390, "height": 900})
    page.goto((folder / "leaderboard.html").as_uri())
    for name in ("worst case", "95% interval"):
        column = page.get_by_role("columnheader", name=name).first.bounding_box()
        assert column["x"] >= 0
        assert column["x"] + column["width"] <= 390
    assert page.locator("tr.row[data-model=gairat] .caveat").is_visible()
    assert page.locator("tr.row[data-model=madry] .caveat").count() == 0
    page.close()


def test_dark_mode_is_dark(chromium: Any, folder: Path) -> None:
    page = chromium.new_page(color_scheme="dark")
    page.goto((folder / "leaderboard.html").as_uri())
    look = "one => getComputedStyle(one).backgroundColor"
    for place in ("body", "tr.row td:nth-child(2)"):
        assert page.locator(place).first.evaluate(look) == "rgb(20, 24, 28)"
    page.close()


def test_head_and_models_are_sticky_in_a_box_that_scrolls(folder: Path) -> None:
    """The stand-in, by the page's text, where no Chromium is; where one is, the tests above see it happen."""
    style = (folder / "leaderboard.html").read_text().split("</style>")[0]
    assert re.search(r"\.scroll > table > thead th \{[^}]*position: sticky; top: 0", style)
    assert re.search(r"tr > :nth-child\(2\) \{[^}]*position: sticky; left: 0[^}]*background", style)
    assert re.search(r"\.scroll \{ overflow: auto; max-height: \d+vh", style)
    assert not re.search(r"display: none", re.sub(r"@media print.*", "", style))  # no column is hidden on any screen
    assert max(map(float, re.findall(r"[^-]width: ([\d.]+)rem", style))) * 16 < 390


def test_the_shadow_of_the_table_lies_over_nothing_of_an_opened_row(page: Any) -> None:
    page.locator("tr.row[data-model=gairat]").get_by_role("button").click()
    frame = page.locator(".frame").bounding_box()
    shadow = page.locator(".frame").evaluate("one => parseFloat(getComputedStyle(one, '::after').width)")
    assert shadow > 0
    for part in page.locator("tr.details > td > div > *").all():
        box = part.bounding_box()
        assert box["x"] + box["width"] <= frame["x"] + frame["width"] - shadow


def test_the_window_itself_never_scrolls_sideways(page: Any) -> None:
    closed = page.locator("#board").bounding_box()["width"]
    page.locator("tr.row").first.get_by_role("button").click()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("#board").bounding_box()["width"] == closed  # what opens scrolls in itself


def test_a_flag_is_explained_on_hover(chromium: Any, folder: Path) -> None:
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    page.goto((folder / "leaderboard.html").as_uri())
    flag = page.locator("tr.row[data-model=gairat] .flag", has_text="pgd-overestimates")
    assert flag.evaluate("one => getComputedStyle(one, '::after').content") == "none"
    flag.hover()
    assert "PGD-100 leaves this many points more standing" in flag.evaluate(
        "one => getComputedStyle(one, '::after').content"
    )
    page.close()

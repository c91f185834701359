"""LaTeX: every table of a suite has the numbers of its CSV in balanced lines, its caveats below it, and compiles."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import get_data_path
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from benchmark.report.latex import LatexTable, escaped
from benchmark.report.score import score_suite
from benchmark.report.tables import write_tables
from benchmark.store.packed import read_packed

VERDICTS = Path(__file__).resolve().parents[3] / "results/verdicts"
EVERY = ("leaderboard", "white_box", "black_box", "papers", "claims")
PAGE = 398.0
HOSTILE = "50%_of & more\\ {~^#$} <a|b> ±"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tables of committed verdicts: digits has transfer and flags, mnist has published figures, too."""
    folders = {suite: tmp_path_factory.mktemp(suite) for suite in ("digits", "mnist")}
    for suite, folder in folders.items():
        write_tables(score_suite(read_packed(VERDICTS / f"{suite}.json"), suite), folder)
    return folders


def cells(line: str) -> list[str]:
    """The cells of a line of a tabular, without what marks caveats."""
    found = re.split(r"(?<!\\)&", line.removesuffix("\\\\").strip())
    return [re.sub(r"\$\^\{[\d,]+\}\$$", "", cell.strip()).removeprefix("\\raggedright ") for cell in found]


def body(text: str) -> list[list[str]]:
    """The lines of a tabular below its headers."""
    content = text.split("\\midrule\n", 1)[1].split("\\bottomrule")[0]
    return [cells(line) for line in content.splitlines() if line != "\\midrule"]


def unbalanced(text: str) -> list[str]:
    """What does not add up in a file: lines with another number of cells than columns, and braces."""
    spans = re.search(r"\\begin\{tabular\}\{((?:[lr]|p\{[^}]*\})+)\}", text)
    assert spans is not None
    columns = len(re.sub(r"p\{[^}]*\}", "p", spans[1]))
    found = [" & ".join(line) for line in body(text) if len(line) != columns]
    plain = "\n".join(line for line in re.sub(r"\\[{}]", "", text).splitlines() if not line.startswith("%"))
    return [*found, *(["braces"] if plain.count("{") != plain.count("}") else [])]


@pytest.mark.parametrize("suite", ["digits", "mnist"])
def test_every_table_that_a_suite_has_is_there_in_latex_and_balanced(folders: dict[str, Path], suite: str) -> None:
    tables = {path.stem for path in folders[suite].glob("*.md")}
    written = {path.stem for path in folders[suite].glob("*.tex")}
    raised = pd.read_csv(folders[suite] / "flags.csv")["raised"].any()
    assert written == tables - (set() if raised else {"flags"})
    assert written >= set(EVERY) - ({"papers"} if suite == "digits" else set())
    for name in written:
        assert unbalanced((folders[suite] / f"{name}.tex").read_text()) == [], name


def test_the_leaderboard_has_the_numbers_of_its_csv_and_its_flags_below(folders: dict[str, Path]) -> None:
    text = (folders["digits"] / "leaderboard.tex").read_text()
    board = pd.read_csv(folders["digits"] / "leaderboard.csv", keep_default_na=False)
    for line, row in zip(body(text), board.to_dict("records"), strict=True):
        assert line[:2] == [str(row["rank"]), row["model"]]
        interval = f"{row['ci_low']:.2f}--{row['ci_high']:.2f}"
        assert line[-3:] == [f"{row['worst case']:.2f}", interval, str(row["n"])]
    marked = re.search(r"& gairat\$\^\{(\d+),(\d+)\}\$ &", text)
    assert marked is not None
    assert f"$^{{{marked[1]}}}$ logit-scaling(10.0): PGD-40 breaks this many points more" in text
    assert f"$^{{{marked[2]}}}$ pgd-overestimates(17.4): PGD-100 leaves" in text


def test_transfer_and_white_box_have_a_line_a_model(folders: dict[str, Path]) -> None:
    crossed = pd.read_csv(folders["digits"] / "black_box.csv")
    text = (folders["digits"] / "black_box.tex").read_text()
    assert "\\multicolumn{3}{c}{pgd-20 crafted on} & \\multicolumn{3}{c}{mi-fgsm crafted on} \\\\\n" in text
    assert "\\cmidrule(lr){2-4} \\cmidrule(lr){5-7}" in text
    lines = {line[0]: line[1:] for line in body(text)}
    assert list(lines) == list(crossed.columns[2:])
    assert lines["madry"] == ["--" if value != value else f"{value:.2f}" for value in crossed["madry"]]
    white = pd.read_csv(folders["digits"] / "white_box.csv").set_index("attack")
    lines = {line[0]: line[1:] for line in body((folders["digits"] / "white_box.tex").read_text())}
    assert lines["madry"][0] == f"{white['madry'].iloc[0]:.2f} ({white['madry (last)'].iloc[0]:.2f})"
    assert lines["forward passes"] == [f"{passes:.0f}" for passes in white["forward passes"]]


def test_published_figures_stand_beside_measured_ones(folders: dict[str, Path]) -> None:
    papers = pd.read_csv(folders["mnist"] / "papers.csv", keep_default_na=False)
    text = (folders["mnist"] / "papers.tex").read_text()
    lines = body(text)
    assert len(lines) == len(papers)
    first = papers.iloc[0]
    assert lines[0][:2] == [first["row"], first["model"]]
    assert lines[0][4:6] == [f"{float(first['published']):.2f}", f"{float(first['measured']):.2f}"]
    for reason in {reason for why in papers["why"] if why for reason in why.split("; ")}:
        assert f"$ {escaped(reason)}" in text


def test_a_claim_has_its_verdict(folders: dict[str, Path]) -> None:
    claims = pd.read_csv(folders["mnist"] / "claims.csv", keep_default_na=False)
    lines = body((folders["mnist"] / "claims.tex").read_text())
    assert [line[-1] for line in lines] == list(claims["verdict"])
    assert [line[2] for line in lines] == [f"{effect:+.2f}" for effect in claims["effect"]]
    assert [line[5] for line in lines] == [str(n) for n in claims["n"]]


@pytest.mark.parametrize("suite", ["digits", "mnist"])
def test_the_claims_fit_a_page(folders: dict[str, Path], suite: str) -> None:
    """Of 14 cm (398 points) of text, by the widths of the letters of LaTeX's own font at 7 points."""
    text = (folders[suite] / "claims.tex").read_text()
    kinds = re.findall(r"p\{[^}]*\}|[lr]", text.split("\\begin{tabular}{")[1].split("}\n")[0])
    header = text.split("\\toprule\n")[1].split(" \\\\\n")[0].split(" & ")
    columns = list(zip(header, *body(text), strict=True))
    taken = 6.0 * len(columns)
    for kind, column in zip(kinds, columns, strict=True):
        share = re.search(r"p\{([0-9.]+)", kind)
        pieces = [word for cell in column for word in (cell.split() if share else [cell])]
        longest = max(width(piece) for piece in pieces)
        taken += longest if share is None else float(share[1]) * PAGE
        assert share is None or longest <= float(share[1]) * PAGE
    assert taken <= PAGE


@cache
def width(text: str) -> float:
    """In points."""
    font = FontProperties(fname=f"{get_data_path()}/fonts/ttf/cmr10.ttf")
    plain = text.replace("\\", "").replace("$", "").replace("raggedright", "")
    return float(TextPath((0, 0), plain or "-", size=7, prop=font).get_extents().width)


def test_a_caveat_is_numbered_once_and_written_once() -> None:
    table = LatexTable(
        ["model", "n"],
        [[["a", "1"], ["b", "2"]], [["c", "3"]]],
        caveats={(0, 1): ["first"], (1, 0): ["second", "first"]},
    )
    text = table.text("note")
    assert "a & 1 \\\\\nb$^{1}$ & 2 \\\\\n\\midrule\nc$^{2,1}$ & 3 \\\\\n" in text
    assert "$^{1}$ first\\\\\n$^{2}$ second\n" in text


def test_a_table_without_caveats_is_a_tabular_alone() -> None:
    text = LatexTable(["model"], [[["a"]]], left=("model",)).text("one\ntwo")
    assert "\n% one\n% two\n\\begin{tabular}{l}\n\\toprule\nmodel \\\\\n\\midrule\na \\\\\n\\bottomrule\n" in text
    assert text.endswith("\\end{tabular}\n")


def test_special_characters_are_escaped() -> None:
    assert escaped("50%_of & more") == "50\\%\\_of \\& more"
    assert re.findall(r"(?<!\\)[&%#_]", escaped(HOSTILE)) == []


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex with booktabs")
@pytest.mark.parametrize("suite", ["digits", "mnist"])
def test_pdflatex_compiles_every_table(folders: dict[str, Path], suite: str, tmp_path: Path) -> None:
    hostile = LatexTable(["model"], [[[HOSTILE]]], caveats={(0, 0): [HOSTILE]}).text(HOSTILE)
    (tmp_path / "hostile.tex").write_text(hostile)
    files = [*sorted(folders[suite].glob("*.tex")), tmp_path / "hostile.tex"]
    inputs = "\n\n".join(f"\\resizebox{{\\linewidth}}{{!}}{{\\input{{{path}}}}}" for path in files)
    main = tmp_path / "main.tex"
    main.write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\usepackage{graphicx}\\usepackage[utf8]{inputenc}\n"
        f"\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", main.name]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert run.returncode == 0, run.stdout[-2000:]

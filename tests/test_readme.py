"""What the README and the pages in docs show is what the project does."""

import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import pytest
from page_files import prepare
from readme_tables import TABLES

from benchmark.cli.app import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    *(
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "results/README.md",
        "results/evidence/README.md",
    ),
    *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
]
WITH_COMMANDS = [
    page
    for page in PAGES
    if page.startswith(("README", "docs/", "results/evidence")) and "run_benchmark.py" in (ROOT / page).read_text()
]

NEEDS_NETWORK = ("torchvision:resnet18", "hf:timm/resnet18.a1_in1k")
PROGRAM, OTHERS_ATTACK = "net.pt2", "NAME"
RUN = {"README.md": 3, "docs/your-model.md": 14, "docs/ci.md": 4}
"""How many commands of each are run."""
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("name", TABLES)
def test_the_readme_shows_the_committed_results_within_100_columns(name: str) -> None:
    readme = (ROOT / "README.md").read_text()
    assert f"<!-- {name} -->\n{TABLES[name]()}<!-- /{name} -->" in readme
    assert max(map(len, TABLES[name]().splitlines())) <= 100


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = (ROOT / ".ci/run").read_text().splitlines()[-1]
    assert command in (ROOT / "README.md").read_text().splitlines()


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", (ROOT / page).read_text())
    assert [link for link in links if not leads_somewhere(ROOT / page, link)] == []


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether a link's file is there and, of a page, the heading behind its #."""
    file, _, heading = link.partition("#")
    target = page.parent / file if file else page
    return target.exists() and (not heading or heading in headings(target.read_text()))


def headings(text: str) -> list[str]:
    """The headings of a page, as GitHub's links have them."""
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found]


def commands(text: str) -> list[list[str]]:
    """The words behind every `run_benchmark.py` that stands in a block or span of code."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [" ".join(span.split()) for span in spans]
    said = [part for line in lines for part in re.split(r"&&|;", line) if "run_benchmark.py" in part]
    return [shlex.split(part.partition("run_benchmark.py")[2].partition(" > ")[0], comments=True) for part in said]


def test_commands_are_found_in_blocks_and_in_spans_with_their_comments_left_out() -> None:
    block = "```\nX=1 python run_benchmark.py table  # all\nls && run_benchmark.py\n```\n"
    text = f"`python run_benchmark.py list\nmodels`\n{block}"
    assert commands(text) == [["table"], [], ["list", "models"]]


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_every_command_shown_has_only_options_that_its_command_takes(
    monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    shown = commands((ROOT / page).read_text())
    silence(cli, monkeypatch)
    wrong = {}
    for words in shown:
        try:
            cli(words, standalone_mode=False)
        except click.ClickException as error:
            wrong[" ".join(words)] = error.format_message()
    assert shown
    assert wrong == {}


def silence(command: click.Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a command, and those below it, read their options and do nothing."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            silence(below, monkeypatch)
    monkeypatch.setattr(command, "callback", None)


def is_run(words: Sequence[str]) -> bool:
    """Whether a command is about own models, images, files of the hub, or rebuilds the tables that papers take."""
    left_out = {*NEEDS_NETWORK, PROGRAM, OTHERS_ATTACK}.intersection(words)
    return not left_out and ("--model" in words or words[:1] in (["push"], ["table"]))


def small(words: Sequence[str]) -> list[str]:
    """The command with small settings behind it, where the last of two counts."""
    if words[0] == "push":  # of numbers that the project comes with
        return [*words, "--results-dir", str(ROOT / "results")]
    if words[0] == "table":
        return [*words]
    more = ["--workers", "1", "--quiet", "--batch-size", "30"]
    if words[0] == "gate":
        return [*words, *more, *(["--attack", "pgd-20"] if words[1] == "update" else [])]
    if "--data" in words:
        more += ["--image-size", "32"]
    return [*words, *more, "--attacks", "fgsm", "--transfer", "none", "--examples", "30"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pages")
    prepare(made)
    return made


@pytest.mark.parametrize("page", RUN)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_commands_of_a_page_run_and_write_what_it_names(command: Command, folder: Path, page: str) -> None:
    """Page by page and in their order, in a folder with the files that they name, with small settings behind them.

    Left out are those alone that need weights from the network, an attack that the reader writes, and a program, which
    is read in tests/benchmark/cli/test_user_models_loading.py.
    """
    text = (ROOT / page).read_text()
    shown = [words for words in commands(text) if is_run(words)]
    assert len(shown) == RUN[page]
    failed = {}
    for words in shown:
        result = command(folder, *small(words))
        if result.returncode:
            failed[" ".join(words)] = result.stderr
    assert failed == {}
    named = re.findall(r"results/mine/[a-z]+/leaderboard\.(?:tex|html)", text)
    assert [name for name in named if not (folder / name).is_file()] == []


def test_every_file_that_the_architecture_page_names_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", text))
    files = {
        f"/{path.relative_to(ROOT)}"
        for folder in ("attacks", "model_zoo", "benchmark", "tests")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert len(named) > 40
    assert [
        name for name in sorted(named - {"run_benchmark.py"}) if not any(file.endswith(f"/{name}") for file in files)
    ] == []

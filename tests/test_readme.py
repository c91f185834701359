"""What the README shows is what the project does."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_readme_shows_the_committed_leaderboard() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = readme.split("<!-- leaderboard -->\n")[1].split("<!-- /leaderboard -->")[0]
    assert shown == (ROOT / "results/digits/leaderboard.md").read_text()


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = (ROOT / ".ci/run").read_text().splitlines()[-1]
    assert command in (ROOT / "README.md").read_text().splitlines()


@pytest.mark.parametrize(
    "page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "results/README.md", "docs/gate.md", "docs/flags.md"]
)
def test_every_relative_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)\)", (ROOT / page).read_text())
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []

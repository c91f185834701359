"""The page of studies shows the committed results of every study, as they are with its present settings."""

from pathlib import Path

import pytest

from benchmark.studies.registry import STUDIES
from benchmark.studies.store import is_done, study_folder

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", STUDIES)
def test_the_committed_results_are_of_the_present_settings_and_the_page_says_the_same(name: str) -> None:
    study, page = STUDIES[name], (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    assert is_done(ROOT / "results", study)
    folder = study_folder(ROOT / "results", study)
    own = (folder / "study.md").read_text(encoding="utf-8")
    title, _, sentence, *_ = own.splitlines()
    assert title == f"# {name}: {study.summary}"
    assert f"\n{sentence}\n" in page
    assert f"](../results/studies/{name}/figure.png)" in page
    agree = own.partition("## Published beside measured: ")[2].partition(" agree")[0]
    assert f"| {study.paper} | [{agree}](../results/studies/{name}/study.md) |" in page


def test_what_does_not_agree_says_why() -> None:
    pages = [
        (study_folder(ROOT / "results", one) / "published.csv").read_text(encoding="utf-8") for one in STUDIES.values()
    ]
    assert [line for page in pages for line in page.splitlines() if ",no," in line] == []

"""The page on adaptive attacks: its files and commands are run as they stand there, and do what it says."""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

PAGE = (Path(__file__).parents[1] / "docs/adaptive.md").read_text()
Command = Callable[..., subprocess.CompletedProcess[str]]
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FILES = {match[1]: block for block in BLOCKS if (match := re.match(r"# (\w+\.py)\n", block))}
COMMANDS = [block for block in BLOCKS if block.startswith("python run_benchmark.py")]
SHORT = ("--examples", "20", "--judge-draws", "5", "--eot", "3", "--workers", "1", "--quiet")


@pytest.mark.parametrize("block", COMMANDS)
def test_each_example_breaks_most_of_the_images_of_its_model(command: Command, tmp_path: Path, block: str) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    done = command(tmp_path, *shlex.split(block)[2:], *SHORT)
    assert done.returncode == 0, done.stderr
    scores = pd.read_csv(tmp_path / "results/mine/digits-masked/scores.csv", keep_default_na=False)
    is_adaptive = scores["attack"].str.endswith(" adaptive")
    assert scores["robust_acc"][is_adaptive == ("--adaptive" in block)].max() <= 20
    if "jpeg" in block:  # which hides its gradient; what the others do is no use against any attack
        assert scores["robust_acc"][~is_adaptive].min() > 50


def test_the_page_has_three_examples() -> None:
    assert len(COMMANDS) == 3
    assert set(FILES) == {"straight.py", "pruned.py"}

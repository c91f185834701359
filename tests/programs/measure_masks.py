"""Eleven masks under the default attacks: python tests/programs/measure_masks.py FOLDER [EXAMPLES].

Runs each mask of `masks.py`, and the model without one, as a user would (`--model masks.py:NAME`); FOLDER keeps the
verdicts. Prints for each what it is flagged for, its worst case and its PGD-100.
"""

import subprocess
import sys
from pathlib import Path

import masks
import pandas as pd

ROOT = Path(__file__).parents[2]


def main() -> None:
    folder, examples = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "200"
    rows = []
    for name in ("unmasked", *(mask.__name__ for mask in masks.MASKS)):
        results = folder.resolve() / name
        words = [
            "--model",
            f"{masks.__file__}:{name}",
            "--examples",
            examples,
            "--results-dir",
            str(results),
            "--quiet",
        ]
        subprocess.run(
            [sys.executable, str(ROOT / "run_benchmark.py"), *words], check=True, cwd=ROOT, stdout=subprocess.DEVNULL
        )
        board = pd.read_csv(results / "digits/leaderboard.csv", keep_default_na=False)
        rows.append(board.assign(mask=name)[["mask", "clean", "pgd-100", "square-500", "worst case", "flags"]])
    print(pd.concat(rows).to_markdown(index=False, floatfmt=".1f"))


if __name__ == "__main__":
    main()

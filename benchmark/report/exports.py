"""The leaderboard in the fields of RobustBench's model_info."""

import json
import re
from fractions import Fraction

import pandas as pd

from benchmark.report.leaderboard import white
from benchmark.report.score import SuiteScores
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import MODELS

LEVELS = 32
"""The most grey levels at which an epsilon is written as a fraction."""


def model_info(suite: SuiteScores, board: pd.DataFrame) -> str:
    """RobustBench's model_info, one record a model. What is not known is null, never a guess.

    `autoattack_acc` is of the attack `autoattack` or `autoattack-reference`, on `n_examples` images.
    """
    specs = {spec.sha256: spec for spec in MODELS if spec.sha256}
    records = {}
    for line in board.to_dict("records"):
        scores = white(suite.scores)[white(suite.scores)["model"] == line["model"]]
        first = scores.iloc[0] if len(scores) else suite.scores[suite.scores["model"] == line["model"]].iloc[0]
        standard = scores[scores["attack"].isin(["autoattack", "autoattack-reference"])]
        spec = specs.get(str(first["checkpoint_sha256"]))
        records[line["model"]] = {
            "link": _link(spec) if spec else None,
            "name": line["model"],
            "authors": None,
            "additional_data": None,
            "number_forward_passes": 1,
            "dataset": first["dataset"],
            "venue": None,
            "architecture": line["architecture"],
            "eps": _epsilon(float(first["epsilon"])),
            "norm": first["norm"],
            "clean_acc": f"{line['clean']:.2f}",
            "reported": None,
            "autoattack_acc": f"{standard.iloc[0]['robust_acc']:.2f}" if len(standard) else None,
            "n_examples": int(standard.iloc[0]["n"]) if len(standard) else int(line["n"]),
            "worst_case_acc": f"{line['worst case']:.2f}",
            "worst_case_interval": [f"{line['ci_low']:.2f}", f"{line['ci_high']:.2f}"],
            "flags": str(line["flags"]).split(),
        }
    return json.dumps(records, indent=1) + "\n"


def _epsilon(epsilon: float) -> str:
    """As RobustBench writes it: 8/255 where it is one, else the number."""
    levels = round(epsilon * 255)
    is_level = 0 < levels <= LEVELS and float(Fraction(levels, 255)) == epsilon
    return f"{levels}/255" if is_level else f"{epsilon:g}"


def _link(spec: ModelSpec) -> str | None:
    """The paper's page on arXiv, else the authors'."""
    number = re.search(r"arXiv:(\d{4}\.\d{4,5})", spec.paper)
    return f"https://arxiv.org/abs/{number[1]}" if number else spec.url or None

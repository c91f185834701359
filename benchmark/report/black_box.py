"""Transfer: what models withstand of what was crafted on others."""

import itertools

import pandas as pd

from benchmark.report.leaderboard import shown_accuracy
from benchmark.report.score import SuiteScores


def transfer_table(suite: SuiteScores) -> pd.DataFrame:
    """Robust accuracy of each target (columns) under examples crafted on each source (rows).

    Attacks are in the order of the suite, sources in the order of the models.
    """
    scores = suite.scores[suite.scores["source_model"] != ""].rename(columns={"source_model": "source"})
    scores = scores.assign(shown=shown_accuracy(suite, scores))
    if scores.empty:
        return pd.DataFrame()
    crossed = scores.pivot(index=["attack", "source"], columns="model", values="shown")
    sources = pd.unique(pd.concat([suite.scores["model"], scores["source"]]))
    rows = [row for row in itertools.product(suite.scores["attack"].unique(), sources) if row in crossed.index]
    return crossed.loc[rows, list(scores["model"].unique())].rename_axis(columns=None).reset_index()

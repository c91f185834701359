"""Robust error is natural error and boundary error, to the image, for every model whose verdicts are stored."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from attacks.errors import InputError
from benchmark.report.figures import COLOURS
from benchmark.report.score import SuiteScores, score_suite
from benchmark.store.packed import read_packed
from benchmark.studies.study import Comparison, Inputs, StudyResult

SUITES = ("digits", "mnist")
SOURCE = "Zhang et al. 2019, Section 2.1"


def compute(inputs: Inputs) -> StudyResult:
    """Natural, boundary and robust error of every model of digits and MNIST, over all attacks that were stored.

    Source: Zhang et al., arXiv:1901.08573, Section 2.1: R_rob = R_nat + R_bdy.
    Deviations: what the stored attacks break stands for what can be broken.
    Raises: InputError where the results folder has no verdicts.
    """
    rows, broken_rule, images = [], 0, 0
    for suite in SUITES:
        path = inputs.results_dir / "verdicts" / f"{suite}.json"
        if not path.is_file():
            raise InputError(
                f"expected packed verdicts in {path}, got none; name a folder that has them (--results-dir results), "
                f"or run suite {suite} first"
            )
        scores = score_suite(read_packed(path), suite)
        for model in dict.fromkeys(entry.model for entry in scores.entries):
            row, amiss = _decomposed(scores, model)
            rows.append({"suite": suite, "model": model, **row})
            broken_rule += amiss
            images += int(row["n"])
    table = pd.DataFrame(rows)
    rule = Comparison(
        "images on which robust error is not natural or boundary error",
        published=0,
        measured=broken_rule,
        n=images,
        source=SOURCE,
    )
    return StudyResult(table, [rule], _sentence(table))


def _decomposed(scores: SuiteScores, model: str) -> tuple[dict[str, float], int]:
    """A model's errors in percent, and the images on which the identity fails.

    The clean verdict and that under attack are stored apart, so that an image could be robust and misclassified.
    """
    images = scores.shared[model]
    cases = [judged for entry, judged in zip(scores.entries, scores.judged, strict=True) if entry.model == model]
    correct = np.all([one.clean.on(images) for one in cases], axis=0)
    withstands = np.all([one.on(images) for one in cases], axis=0)
    natural, boundary, robust = ~correct, correct & ~withstands, ~withstands
    amiss = int((robust.astype(int) != natural.astype(int) + boundary.astype(int)).sum())
    shares = {"natural": natural, "boundary": boundary, "robust": robust}
    return {"n": len(images), **{f"{name}_error": 100 * float(of.mean()) for name, of in shares.items()}}, amiss


def _sentence(table: pd.DataFrame) -> str:
    share = table["boundary_error"] / table["robust_error"]
    return (
        f"For each of {len(table)} models the images that attacks leave wrong are those that were wrong before and "
        f"those that lie near the boundary; the latter are {100 * share.min():.0f} to {100 * share.max():.0f}% of them."
    )


def draw(table: pd.DataFrame) -> Figure:
    """Natural and boundary error of every model, one on the other."""
    figure = Figure(figsize=(9, 1.2 + 0.17 * table.groupby("suite").size().max()))
    panels = figure.subplots(1, table["suite"].nunique(), squeeze=False)[0]
    for axes, (suite, rows) in zip(panels, table.groupby("suite", sort=False), strict=True):
        ordered = rows.sort_values("robust_error", ascending=False)
        axes.barh(ordered["model"], ordered["natural_error"], color=COLOURS[0], label="natural error")
        axes.barh(
            ordered["model"],
            ordered["boundary_error"],
            left=ordered["natural_error"],
            color=COLOURS[1],
            label="boundary error",
        )
        axes.set(title=str(suite), xlabel="error (%)", xlim=(0, 100))
        axes.tick_params(axis="y", labelsize=7)
        axes.set_axisbelow(True)
    panels[0].legend(frameon=False, loc="upper right", fontsize=8)
    return figure

"""The options that the gate alone has: those of a comparison, and those of writing the baseline."""

import click

from benchmark.cli.headings import Decorator, option
from benchmark.cli.options import FILE, NORMS, SEEDS, WHAT
from benchmark.cli.values import FiniteRange, Number

RULES, REPORTS = "When a model fails", "Reports"


def _rules(default: str) -> tuple[Decorator, ...]:
    """The options of the rules that a baseline records, with a text that says what holds otherwise."""
    return (
        option(
            "--tolerance",
            RULES,
            f"A model may lose this many points of robust accuracy.  [default: {default}1]",
            type=FiniteRange(0, 100),
        ),
        option(
            "--alpha",
            RULES,
            "The family-wise error rate: the probability that a run fails any model that did not become worse.  "
            f"[default: {default}0.01]",
            type=FiniteRange(1e-6, 0.5),
        ),
    )


COMPARING = (
    option(
        "--baseline",
        WHAT,
        "The models are compared with this file; it must be given.",
        type=FILE,
        metavar="FILE.json",
    ),
    option(
        "--models",
        WHAT,
        "These models are attacked; NAME=FILE gives one other weights.  [default: the baseline's]",
        metavar="all|NAME,...",
    ),
    *_rules("the baseline's, else "),
    option(
        "--min-robust-acc",
        RULES,
        "A model fails if its robust accuracy, in percent, is significantly below this.",
        type=FiniteRange(0, 100),
    ),
    option(
        "--miss",
        RULES,
        "The probability that a model passes early which would fail on all images.",
        type=FiniteRange(1e-6, 0.5),
        default=0.05,
    ),
    option(
        "--budget",
        RULES,
        "The run stops after this time, decided or not.",
        type=FiniteRange(0, min_open=True),
        metavar="MINUTES",
    ),
    option(
        "--undecided",
        RULES,
        "This is the outcome of a run with undecided questions.  [default: fail where its time was up, pass where its "
        "images ran out]",
        type=click.Choice(["fail", "pass"]),
    ),
    option(
        "--screen",
        RULES,
        "The first images alone are attacked, by the first part of the attack, for a minute or --budget: a clear drop "
        "fails, and nothing passes.",
        is_flag=True,
    ),
    option(
        "--require-shown",
        RULES,
        "A model fails on which a check of `diagnose` fails, the flag not-shown; it must have been diagnosed, with "
        "these weights and this --results-dir.",
        is_flag=True,
    ),
    option("--junit", REPORTS, "JUnit XML is written to this file.", type=FILE, metavar="FILE"),
    option("--sarif", REPORTS, "SARIF 2.1.0, for code scanning, is written to this file.", type=FILE, metavar="FILE"),
    option("--summary", REPORTS, "A summary in Markdown is appended to this file.", type=FILE, metavar="FILE"),
)
UPDATING = (
    option(
        "--baseline",
        WHAT,
        "This file is written, or a part of it anew.",
        required=True,
        type=FILE,
        metavar="FILE.json",
    ),
    option(
        "--models",
        WHAT,
        "These models are recorded, and the others stay as they are.  [default: all, or none beside --model]",
        metavar="all|NAME,...",
    ),
    option(
        "--suite",
        WHAT,
        "The models and images are of this suite.  [default: that of --dataset, as before, else digits]",
        metavar="NAME",
    ),
    option("--attack", WHAT, "This attack is run.  [default: as before, else autoattack-brief]", metavar="NAME"),
    option(
        "--examples",
        WHAT,
        "The number of test images, a class-balanced subset.  [default: the suite's]",
        type=click.IntRange(1),
    ),
    option("--norm", WHAT, "This norm is used in place of the suite's.", type=NORMS),
    option(
        "--epsilon",
        WHAT,
        "This radius is used in place of the suite's; it is in pixel scale: 8/255, not 8.",
        type=Number(),
    ),
    option(
        "--canaries",
        WHAT,
        "These two models, undefended and robust, show in each run whether the attack still works.",
        metavar="UNDEFENDED,ROBUST|none",
    ),
    option(
        "--seed",
        WHAT,
        "The subset, the order of images and all random draws follow this seed.  [default: as before, else 0]",
        dest="recorded_seed",
        type=SEEDS,
    ),
    *_rules("as before, else "),
)

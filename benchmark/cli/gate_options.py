"""The options that the gate alone has."""

import click

from benchmark.cli.headings import option
from benchmark.cli.options import FILE, NORMS, SEEDS, WHAT, FiniteRange, Number

RULES, REPORTS, UPDATING = "When a model fails", "Reports", "What --update records"

GATE = (
    option(
        "--baseline",
        WHAT,
        "The models are compared with this file, or with --update it is written.",
        required=True,
        type=FILE,
        metavar="FILE.json",
    ),
    option("--update", WHAT, "The baseline is written; nothing is compared with it.", is_flag=True),
    option(
        "--models",
        WHAT,
        "These models are attacked; NAME=FILE gives one other weights.  [default: the baseline's]",
        metavar="all|NAME,...",
    ),
    option(
        "--tolerance",
        RULES,
        "A model may lose so many points of robust accuracy.",
        type=FiniteRange(0, 100),
        default=1.0,
    ),
    option(
        "--min-robust-acc",
        RULES,
        "A model fails whose robust accuracy is significantly below so many percent.",
        type=FiniteRange(0, 100),
    ),
    option(
        "--alpha",
        RULES,
        "The family-wise error rate: the probability that a run fails any model that did not become worse.",
        type=FiniteRange(1e-6, 0.5),
        default=0.01,
    ),
    option(
        "--miss",
        RULES,
        "The probability that a question is passed early which all images would fail.",
        type=FiniteRange(1e-6, 0.5),
        default=0.05,
    ),
    option(
        "--budget",
        RULES,
        "The run stops after so many minutes, decided or not.",
        type=FiniteRange(0, min_open=True),
        metavar="MINUTES",
    ),
    option(
        "--undecided",
        RULES,
        "A run that stopped with open questions comes to this.",
        type=click.Choice(["fail", "pass"]),
        default="fail",
    ),
    option("--junit", REPORTS, "JUnit XML is written to this file.", type=FILE, metavar="FILE"),
    option("--summary", REPORTS, "A summary in Markdown is appended to this file.", type=FILE, metavar="FILE"),
    option(
        "--suite",
        UPDATING,
        "The models and images are of this suite.  [default: as before, else digits]",
        metavar="NAME",
    ),
    option("--attack", UPDATING, "This attack is run.  [default: as before, else autoattack-brief]", metavar="NAME"),
    option(
        "--examples",
        UPDATING,
        "A class-balanced subset of so many test images is attacked.  [default: the suite's]",
        type=click.IntRange(1),
    ),
    option("--norm", UPDATING, "This norm is used in place of the suite's.", type=NORMS),
    option(
        "--epsilon",
        UPDATING,
        "This radius is used in place of the suite's; it is in pixel scale: 8/255, not 8.",
        type=Number(),
    ),
    option(
        "--canaries",
        UPDATING,
        "An undefended and a robust model of the suite show whether the attack works, or none does.",
        metavar="UNDEFENDED,ROBUST",
    ),
    option(
        "--seed",
        UPDATING,
        "The subset, the order of images and all random draws follow this seed.  [default: as before, else 0]",
        dest="recorded_seed",
        type=SEEDS,
    ),
)

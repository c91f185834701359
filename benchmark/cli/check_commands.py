"""The commands that ask for more than attacks show, and the options that each takes: diagnose, certify, corruptions."""

from typing import Any

import click

from benchmark.cli.headings import HeadedCommand, option
from benchmark.cli.options import (
    ATTACK_WORKERS,
    ATTACKING,
    CERTIFY_WORKERS,
    CHECKPOINTS,
    DATA,
    DATASET,
    DEVICE,
    OWN_DATA,
    OWN_MODEL,
    OWN_NAME,
    QUIET,
    REJECTS,
    RESULTS,
    SEED,
    THREAT,
    WHAT,
    Shared,
    takes,
)
from benchmark.cli.values import Number

# What loads torch is imported inside the commands, so that help and mistakes answer at once.


@click.command("diagnose", cls=HeadedCommand)
@option(
    "--models",
    WHAT,
    "The attack is diagnosed on these models.  [default: all, or none beside --model]",
    metavar="all|NAME,...",
)
@option("--suite", WHAT, "This suite is used.  [default: digits, or that of --dataset]", metavar="NAME")
@option("--attack", WHAT, "This attack by gradients is diagnosed.", default="pgd-40", metavar="NAME")
@option(
    "--attack-epsilon",
    WHAT,
    "The attack runs at this radius; what it is compared with keeps --epsilon.  [default: the same]",
    type=Number(),
)
@option("--examples", WHAT, "The number of test images.  [default: 200]", type=click.IntRange(1))
@option(
    "--hidden",
    WHAT,
    "The binarization test hides a point in so many images, or in all there are; each costs a thousand passes.  "
    "[default: 512, or --examples if these are fewer]",
    type=click.IntRange(1),
)
@option(
    "--adaptive",
    WHAT,
    "The attack is crafted on what this function makes of a model; mask stands for what is known of the model's mask.  "
    "[default: the model itself]",
    metavar="PATH.py:FUNCTION|mask|none",
)
@takes(
    *(THREAT, SEED, OWN_MODEL, REJECTS, OWN_NAME, OWN_DATA, DATASET, DATA, CHECKPOINTS, RESULTS),
    *(ATTACKING, ATTACK_WORKERS, QUIET),
)
def diagnose_command(*, shared: Shared, **options: Any) -> None:
    """Ask whether an attack is shown to work on a model: a checklist with tests, and hidden points to find."""
    from benchmark.cli.diagnose import diagnose

    diagnose(shared, **options)


@click.command("certify", cls=HeadedCommand)
@option("--models", WHAT, "These models are certified.  [default: all, or none beside --model]", metavar="all|NAME,...")
@option("--suite", WHAT, "This suite is used.  [default: digits, or that of --dataset]", metavar="NAME")
@option(
    "--method",
    WHAT,
    "These methods certify, from cheap to complete: ibp, convex, crown, bab, milp, smoothing.",
    default="ibp,crown",
    metavar="NAME,...",
)
@option("--examples", WHAT, "The number of test images.", type=click.IntRange(1))
@option("--steps", WHAT, "The slopes of crown climb for so many steps.  [default: 20]", type=click.IntRange(0, 10_000))
@option("--seconds", WHAT, "Methods bab and milp may take so many seconds for an image.  [default: 30]", type=Number())
@option("--sigma", WHAT, "The noise of smoothing has this deviation, in pixel scale.  [default: 0.25]", type=Number())
@option("--n0", WHAT, "Smoothing guesses the class by so many samples.  [default: 100]", type=click.IntRange(1))
@option(
    "--n",
    WHAT,
    "Smoothing bounds the class's probability by so many samples.  [default: 10000]",
    type=click.IntRange(1),
)
@option(
    "--alpha",
    WHAT,
    "A certificate of smoothing is wrong with this probability at most.  [default: 0.001]",
    type=Number(),
)
@takes(THREAT, SEED, OWN_MODEL, OWN_NAME, OWN_DATA, DATASET, DATA, CHECKPOINTS, RESULTS, DEVICE, CERTIFY_WORKERS, QUIET)
def certify_command(*, shared: Shared, **options: Any) -> None:
    """Prove which images no attack can break: bounds from cheap to complete, and randomised smoothing."""
    from benchmark.cli.certify import certify

    certify(shared, **options)


@click.command("corruptions", cls=HeadedCommand)
@option("--models", WHAT, "These models are measured.  [default: all, or none beside --model]", metavar="all|NAME,...")
@option("--suite", WHAT, "This suite is used.  [default: digits, or that of --dataset]", metavar="NAME")
@option(
    "--types",
    WHAT,
    "The 15 common corruptions, all 19, or these.",
    default="all",
    metavar="all|common|NAME,...",
)
@option("--examples", WHAT, "The number of test images.", type=click.IntRange(1))
@takes(SEED, OWN_MODEL, OWN_NAME, OWN_DATA, DATASET, DATA, CHECKPOINTS, RESULTS, DEVICE, QUIET)
def corruptions_command(*, shared: Shared, **options: Any) -> None:
    """Measure accuracy under common corruptions: 15 + 4 types at five severities, of images that nobody attacks."""
    from benchmark.cli.corruptions import corruptions

    corruptions(shared, **options)

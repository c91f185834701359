"""Suites: each binds a dataset, a threat model, attacks with their settings, and how many images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from attacks.names import by_name
from attacks.registry import ATTACKS
from attacks.spec import AttackSpec
from attacks.threat_model import ThreatModel
from benchmark.suites.paper_suites import PAPER_SUITES
from benchmark.suites.suite import EVERY, TRANSFERRED, Suite

FLAG_ATTACKS = ("pgd-40-x10", "square-500")
"""Attacks that others are compared with, for the flags of `report/attack_flags.py`."""
STANDARD = ("fgsm", "pgd-20", "pgd-40", "pgd-100", "cw-linf", "mi-fgsm", *FLAG_ATTACKS, "autoattack")
DIGITS = (*STANDARD[:-1], "foolbox-deepfool", "foolbox-cw-l2", "autoattack-fast")
MASKED = ("fgsm", "pgd-40", "pgd-100", *FLAG_ATTACKS, "autoattack-brief")
"""A long AutoAttack would take an hour on models that answer at random, and break nothing that hides its gradient."""
ADAPTIVE = ("pgd-100", "cw-linf")
TRANSFER = ("pgd-20", "mi-fgsm")
SOURCES = ("natural", "madry", "trades-b6")
"""An undefended model and the two defenses that every paper compares with."""


def _suite(
    name: str,
    dataset: str,
    threat: ThreatModel,
    examples: int | None,
    summary: str,
    *,
    attacks: Sequence[str] = STANDARD,
    rel_step_size: float = 0.1,
    fewer: Mapping[str, int] = MappingProxyType({}),
) -> Suite:
    """A leaderboard suite: any iterate is read, and the PGD attacks share a step size.

    Its steps add up to twice epsilon at least, so that every point of the ball is within reach of every other. Other
    attacks keep theirs, of `attacks/registry.py`: MI-FGSM epsilon over its number of steps.
    """
    return Suite(
        name,
        dataset=dataset,
        threat=threat,
        attacks=_sized(attacks, threat, rel_step_size),
        transfer=TRANSFER,
        sources=SOURCES,
        examples=examples,
        reading="any",
        summary=summary,
        fewer=fewer,
    )


def _sized(names: Sequence[str], threat: ThreatModel, rel_step_size: float = 0.1) -> tuple[AttackSpec, ...]:
    """The attacks that there are for a norm; those of PGD that iterate with this step size."""
    specs = [ATTACKS[name] for name in names if threat.family in ATTACKS[name].norms]
    return tuple(
        spec.with_settings(rel_step_size=rel_step_size) if spec.algorithm == "pgd" and spec.steps > 1 else spec
        for spec in specs
    )


def _masked(dataset: str, threat: ThreatModel, examples: int | None, summary: str) -> Suite:
    """Models that mask their gradients, with an undefended one and an honest defense as controls, and cascade's.

    Cascade adversarial training stands among them in the table that they are taken from, and masks nothing here.

    An adaptive attack is read by any iterate alone, so that it leaves an image once that is broken.
    """
    plain = _suite(f"{dataset}-masked", dataset, threat, examples, summary, attacks=MASKED)
    adaptive = tuple(replace(spec, reads_last=False) for spec in _sized(ADAPTIVE, threat))
    return replace(plain, transfer=(), sources=(), adaptive=adaptive, controls=(*SOURCES[:2], "cascade"))


SPATIAL_ATTACKS = ("spatial-random-10", "spatial-grid-31")
"""Of Engstrom et al., arXiv:1712.02779: the worst of ten, and of all 775 of their grid."""
L1_ATTACKS = ("apgd-l1", "apgd-l1-t", "autoattack-l1")


def _beside(name: str, dataset: str, threat: ThreatModel, attacks: Sequence[str], summary: str) -> Suite:
    """The models of a dataset's leaderboard under another threat model: 1,000 images, nothing transferred."""
    examples = None if dataset == "digits" else 1000
    plain = _suite(name, dataset, threat, examples, summary, attacks=attacks)
    return replace(plain, transfer=(), sources=(), controls=EVERY)


BESIDE = (
    _beside(
        "digits-spatial",
        "digits",
        ThreatModel("spatial-30deg", 1.0),
        SPATIAL_ATTACKS,
        "rotations by up to 30 degrees and shifts by up to 1 pixel",
    ),
    *(
        _beside(
            f"{dataset}-spatial",
            dataset,
            ThreatModel("spatial-30deg", 3.0),
            SPATIAL_ATTACKS,
            "rotations by up to 30 degrees and shifts by up to 3 pixels (arXiv:1712.02779)",
        )
        for dataset in ("mnist", "cifar10")
    ),
    *(
        _beside(f"{dataset}-l1", dataset, ThreatModel("L1", epsilon), L1_ATTACKS, "the same images under L1")
        for dataset, epsilon in (("digits", 1.0), ("mnist", 10.0), ("cifar10", 12.0))
    ),
)
"""Threat models beside Linf and L2. The radii of L1 are those of arXiv:2103.01208 (CIFAR-10) and arXiv:1909.04068
(MNIST); for the digits there is none."""

IMAGENET = "imagenet"
"""The dataset of RobustBench's ImageNet leaderboards, which nobody can download without an account."""

SUITES: Mapping[str, Suite] = by_name(
    (
        _suite(
            "digits",
            "digits",
            ThreatModel("Linf", 0.2),
            None,
            "scikit-learn's 8x8 digits, embedded: 500 test images, no download",
            attacks=DIGITS,
        ),
        _masked(
            "digits",
            ThreatModel("Linf", 0.2),
            None,
            "defenses that mask their gradients, under plain and adaptive attacks",
        ),
        _suite("digits-l2", "digits", ThreatModel("L2", 1.0), None, "the same images under L2", attacks=DIGITS),
        _suite(
            "mnist",
            "mnist",
            ThreatModel("Linf", 0.3),
            None,
            "all test images, AutoAttack, transfer and checks on 1,000 of them",
            fewer={"autoattack": 1000, TRANSFERRED: 1000, **dict.fromkeys(FLAG_ATTACKS, 1000)},
        ),
        _masked(
            "mnist",
            ThreatModel("Linf", 0.3),
            500,
            "defenses that mask their gradients, under plain and adaptive attacks",
        ),
        replace(_suite("mnist-l2", "mnist", ThreatModel("L2", 2.0), 1000, "the same images under L2"), controls=EVERY),
        _suite("fashion-mnist", "fashion-mnist", ThreatModel("Linf", 0.1), 1000, "1,000 balanced test images"),
        _suite(
            "cifar10", "cifar10", ThreatModel("Linf", 8 / 255), 1000, "1,000 balanced test images", rel_step_size=0.25
        ),
        replace(
            _suite(
                "cifar10-l2", "cifar10", ThreatModel("L2", 0.5), 1000, "the same images under L2", rel_step_size=0.25
            ),
            controls=EVERY,
        ),
        _suite(
            "cifar100", "cifar100", ThreatModel("Linf", 8 / 255), 1000, "1,000 balanced test images", rel_step_size=0.25
        ),
        _suite("svhn", "svhn", ThreatModel("Linf", 8 / 255), 1000, "1,000 balanced test images", rel_step_size=0.25),
        _suite(
            IMAGENET,
            IMAGENET,
            ThreatModel("Linf", 4 / 255),
            5000,
            "5,000 balanced images of the validation folder that --data names",
            rel_step_size=0.25,
        ),
        *BESIDE,
        *PAPER_SUITES,
    ),
    "suite",
)


RESERVED = ("runs", "verdicts", "studies", "evidence")
"""What lies in a results folder beside the tables of suites."""


def own_suite_name(images: str) -> str:
    """What a user's own images and their suite are called: as their folder, unless that name means something else."""
    known = {*SUITES, *(suite.dataset for suite in SUITES.values()), *RESERVED}
    return f"own-{images}" if images in known else images


def own_suite(images: str, threat: ThreatModel) -> Suite:
    """The suite of a user's own images: all of them, under the attacks of the leaderboard suites."""
    name = own_suite_name(images)
    return _suite(name, name, threat, None, "your own images", rel_step_size=0.25)

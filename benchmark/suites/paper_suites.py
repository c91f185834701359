"""The papers' tables as suites: epsilon, step sizes, random starts and restarts exactly as their authors have them.

0.031 is not 8/255, a step of 0.003 is not a quarter of epsilon, and where a paper starts at the image itself a random
start moves the figure by about a point. Where `reads_last` is off, any iterate is read in a suite of the last, too: so
are the two attacks of five restarts judged by their authors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from attacks.registry import ATTACKS
from attacks.spec import AttackSpec
from attacks.threat_model import ThreatModel
from benchmark.suites.suite import Suite

AT_31 = ThreatModel("Linf", 0.031)
AT_8 = ThreatModel("Linf", 8 / 255)
MNIST = ThreatModel("Linf", 0.3)


def _pgd(name: str, threat: ThreatModel, steps: int, step_size: float, start: str, *, loss: str = "") -> AttackSpec:
    """PGD by a paper's numbers, the step size in pixel scale as papers print it."""
    base = ATTACKS["cw-linf" if loss == "margin" else "pgd-20"]
    settings = base.with_settings(steps=steps, start=start, rel_step_size=step_size / threat.epsilon)
    return replace(settings, name=name)


def _restarted(attack: AttackSpec, restarts: int, *, any_iterate: bool) -> AttackSpec:
    return replace(attack, restarts=restarts, reads_last=not any_iterate)


def _paper(
    name: str,
    dataset: str,
    threat: ThreatModel,
    attacks: Sequence[AttackSpec],
    summary: str,
    *,
    transfer: Sequence[str] = (),
    fewer: Mapping[str, int] | None = None,
) -> Suite:
    """All test images, the last iterate, a search in float32: how the papers measure."""
    return Suite(
        name,
        dataset=dataset,
        threat=threat,
        attacks=tuple(attacks),
        transfer=transfer,
        sources=(),
        examples=None,
        reading="last",
        summary=summary,
        fewer=fewer or {},
        precision="fp32",
    )


PAPER_SUITES: Sequence[Suite] = (
    _paper(
        "trades-table5",
        "cifar10",
        AT_31,
        (
            _pgd("fgsm", AT_31, 1, 0.031, "none"),
            _pgd("pgd-20", AT_31, 20, 0.003, "none"),
            _pgd("pgd-1000", AT_31, 1000, 0.003, "none"),
            ATTACKS["mi-fgsm"],
            ATTACKS["foolbox-deepfool"],
            ATTACKS["lbfgs"],
            ATTACKS["autoattack"],
        ),
        "TRADES (arXiv:1901.08573), Table 5 and black-box table: 0.031, steps of 0.003, no random start",
        transfer=("pgd-20",),
    ),
    _paper(
        "trades-mnist",
        "mnist",
        MNIST,
        # The published figures were made from the image itself, though the released script starts at random.
        (
            _pgd("pgd-40", MNIST, 40, 0.01, "none"),
            _pgd("pgd-1000", MNIST, 1000, 0.01, "none"),
            ATTACKS["square"],
            ATTACKS["autoattack"],
        ),
        "TRADES (arXiv:1901.08573) on MNIST: 40 steps of 0.01, no random start; the costly attacks on 1,000 images",
        transfer=("pgd-40",),
        fewer={"pgd-1000": 1000, "square": 1000, "autoattack": 1000},
    ),
    _paper(
        "fat-table1",
        "cifar10",
        AT_31,
        (
            _pgd("fgsm", AT_31, 1, 0.031, "uniform"),
            _pgd("pgd-20", AT_31, 20, 0.031 / 4, "uniform"),
            _pgd("cw-linf", AT_31, 30, 0.031 / 4, "uniform", loss="margin"),
            _pgd("pgd-100", AT_31, 100, 0.031 / 4, "uniform"),
        ),
        "FAT (arXiv:2002.11242), Table 1: 0.031, steps of 0.031/4 from a random start",
    ),
    _paper(
        "fat-table2",
        "cifar10",
        AT_31,
        (
            _pgd("fgsm", AT_31, 1, 0.031, "none"),
            _pgd("pgd-20", AT_31, 20, 0.003, "none"),
            _pgd("cw-linf", AT_31, 30, 0.003, "none", loss="margin"),
            _pgd("pgd-100", AT_31, 100, 0.003, "none"),
        ),
        "FAT (arXiv:2002.11242), Table 2: 0.031, steps of 0.003, no random start",
    ),
    _paper(
        "gairat-table1",
        "cifar10",
        AT_31,
        (
            _pgd("pgd-20", AT_31, 20, 0.031 / 4, "uniform"),
            _restarted(_pgd("pgd-plus", AT_31, 40, 0.01, "uniform"), 5, any_iterate=True),
        ),
        "GAIRAT (arXiv:2010.01736), Table 1: PGD-20 by the last iterate, PGD+ (5 restarts of 40 steps) by any",
    ),
    _paper(
        "rst-table1",
        "cifar10",
        AT_31,
        (
            _pgd("pg-madry", AT_31, 20, 2 / 255, "uniform"),
            _pgd("pg-trades", AT_31, 20, 0.003, "none"),
            _restarted(_pgd("pg-ours", AT_31, 40, 0.01, "uniform"), 5, any_iterate=True),
            ATTACKS["cw-linf-search"],
        ),
        "RST (arXiv:1905.13736), Table 1: 0.031; PG_Ours (5 restarts of 40 steps of 0.01) by any iterate",
        fewer={"cw-linf-search": 1000},
    ),
    _paper(
        "madry",
        "cifar10",
        AT_8,
        (
            _pgd("fgsm", AT_8, 1, 8 / 255, "none"),
            _pgd("fgsm-cw", AT_8, 1, 8 / 255, "none", loss="margin"),
            _pgd("pgd-20", AT_8, 20, 2 / 255, "uniform"),
            _pgd("pgd-20-cw", AT_8, 20, 2 / 255, "uniform", loss="margin"),
            _restarted(_pgd("pgd-20x10", AT_8, 20, 2 / 255, "uniform"), 10, any_iterate=False),
        ),
        "Madry et al. (arXiv:1706.06083), CIFAR-10 challenge: 8/255, steps of 2/255 from a random start",
    ),
    _paper(
        "madry-mnist",
        "mnist",
        MNIST,
        (
            _pgd("fgsm", MNIST, 1, 0.3, "none"),
            _pgd("fgsm-cw", MNIST, 1, 0.3, "none", loss="margin"),
            _pgd("pgd-100", MNIST, 100, 0.01, "uniform"),
            _pgd("pgd-100-cw", MNIST, 100, 0.01, "uniform", loss="margin"),
            _restarted(_pgd("pgd-100x50", MNIST, 100, 0.01, "uniform"), 50, any_iterate=False),
            _restarted(_pgd("pgd-100-cw-x50", MNIST, 100, 0.01, "uniform", loss="margin"), 50, any_iterate=False),
            ATTACKS["square"],
            ATTACKS["autoattack"],
        ),
        "Madry et al. (arXiv:1706.06083), MNIST challenge: steps of 0.01; the costly attacks on 1,000 images",
        fewer=dict.fromkeys(("pgd-100x50", "pgd-100-cw-x50", "square", "autoattack"), 1000),
    ),
)

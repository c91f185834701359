"""Flags that the cases of a model show together: one case breaks more than another that should be the stronger.

Each is raised by two facts: the difference is larger than the flag's margin, and the exact McNemar test on the images
that both cases saw, corrected for all comparisons of the table, tells the two apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from attacks.registry import ATTACKS, known_attack
from attacks.spec import AttackSpec, Ensemble, Recurrence
from benchmark.report.score import Judged, SuiteScores, common_images
from benchmark.stats.sequential import holm
from benchmark.stats.shares import mcnemar_one_sided, three_digits
from benchmark.suites.case import ADAPTIVE

MARGINS: Mapping[str, float] = {
    "transfer-beats-white-box": 3.0,
    "black-box-beats-gradients": 5.0,
    "pgd-overestimates": 10.0,
    "one-step-beats-iterative": 3.0,
    "logit-scaling": 5.0,
    "other-loss": 8.0,
    "adaptive-beats-plain": 5.0,
}
"""How many points the difference must be larger than; `docs/flags.md` has what honest models show."""

SIGNIFICANT = 0.05
"""Below this p, corrected, a difference is none of chance: the family-wise error rate of a table."""

AUTOATTACK = ("autoattack", "autoattack-reference", "autoattack-plus", "autoattack-fast", "autoattack-brief")
"""The one that comes first is compared; of attacks under other names, one with the algorithm of one of these."""
ITERATIVE, LONG = 20, 100
"""Steps of PGD from which it is compared with FGSM, and with AutoAttack."""

Cases = Mapping[tuple[str, str], Judged]
"""(attack, source model) to the verdicts of a model's cases; no source for a white-box case."""


@dataclass(frozen=True)
class Comparison:
    """A case that should be no stronger than another, and what it breaks of the images that both saw.

    Args:
        attack, source: the case; source is "" for a white-box one. against: the attack that it is compared with.
        n: images that both saw. only_attack, only_against: those that one of the two alone breaks.
    """

    model: str
    flag: str
    attack: str
    source: str
    against: str
    n: int
    only_attack: int
    only_against: int

    @property
    def points(self) -> float:
        """How many points more the case breaks."""
        return 100 * (self.only_attack - self.only_against) / self.n

    @property
    def p(self) -> float:
        """That of the one-sided exact McNemar test."""
        return mcnemar_one_sided(self.only_attack, self.only_against)


def comparisons(suite: SuiteScores) -> list[Comparison]:
    """Every comparison that the cases of a table allow, model by model in display order."""
    models: dict[str, dict[tuple[str, str], Judged]] = {}
    for entry, judged in zip(suite.entries, suite.judged, strict=True):
        models.setdefault(entry.model, {})[entry.attack, entry.source_model] = judged
    return [found for model, cases in models.items() for found in _of_model(model, cases) if found.n]


COLUMNS = [
    *("model", "flag", "attack", "source_model", "against", "n", "attack_only", "against_only"),
    *("points", "margin", "p", "p_holm", "raised"),
]


def flag_table(suite: SuiteScores) -> pd.DataFrame:
    """A row a comparison: what was compared, by how many points, how surely, and whether the flag is raised."""
    return _table(comparisons(suite))


def flags_of(model: str, cases: Cases, specs: Mapping[str, AttackSpec] = ATTACKS) -> list[str]:
    """The flags that some cases of one model raise, corrected for the comparisons among these.

    Args:
        specs: by the names that the cases have, what the attacks are.
    """
    return raised_flags(_table([found for found in _of_model(model, cases, specs) if found.n]), model)


def _table(found: Sequence[Comparison]) -> pd.DataFrame:
    rows = [
        {
            "model": one.model,
            "flag": one.flag,
            "attack": one.attack,
            "source_model": one.source,
            "against": one.against,
            "n": one.n,
            "attack_only": one.only_attack,
            "against_only": one.only_against,
            "points": one.points,
            "margin": MARGINS[one.flag],
            "p": three_digits(one.p),
            "p_holm": three_digits(p_holm),
            "raised": one.points > MARGINS[one.flag] and p_holm < SIGNIFICANT,
        }
        for one, p_holm in zip(found, holm([one.p for one in found]), strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"raised": bool})


def raised_flags(table: pd.DataFrame, model: str) -> list[str]:
    """The flags of a model, each once, with the largest difference in points: NAME(POINTS)."""
    own = table[table["raised"] & (table["model"] == model)]
    return [f"{flag}({points:.1f})" for flag, points in own.groupby("flag")["points"].max().items()]


def _of_model(model: str, cases: Cases, specs: Mapping[str, AttackSpec] = ATTACKS) -> Iterator[Comparison]:
    def compared(flag: str, attack: str, against: str, source: str = "") -> Comparison:
        one, other = cases[attack, source], cases[against, ""]
        images = common_images([one, other])
        robust, beside = one.on(images), other.on(images)
        counts = int((beside & ~robust).sum()), int((robust & ~beside).sum())
        return Comparison(model, flag, attack, source, against, len(images), *counts)

    named = {attack: specs.get(attack) or known_attack(attack) for attack, source in cases if not source}
    white = {attack: spec for attack, spec in named.items() if spec is not None}
    by_gradient = [
        attack for attack, spec in white.items() if isinstance(spec.method, Recurrence) and not spec.is_black_box
    ]
    for (attack, source), judged in cases.items():
        best = _strongest(by_gradient, cases, judged)
        if source and (against := attack if (attack, "") in cases else best):
            yield compared("transfer-beats-white-box", attack, against, source)
        if best and not source and attack in white and white[attack].is_black_box:
            yield compared("black-box-beats-gradients", attack, best)
        if attack.endswith(ADAPTIVE) and not source and (plain := (attack.removesuffix(ADAPTIVE), "")) in cases:
            yield compared("adaptive-beats-plain", attack, plain[0])
    pgd, scaled, dlr = (_by_steps(white, loss) for loss in ("cross-entropy", "cross-entropy-x10", "dlr"))
    longest = max(pgd, default=0)
    autoattack = _autoattack(white)
    if autoattack and longest >= LONG:
        yield compared("pgd-overestimates", autoattack, pgd[longest])
    if longest >= ITERATIVE and 1 in pgd:
        yield compared("one-step-beats-iterative", pgd[1], pgd[longest])
    for steps in sorted(scaled.keys() & pgd.keys()):
        yield compared("logit-scaling", scaled[steps], pgd[steps])
    for steps in sorted(dlr.keys() & pgd.keys()):
        yield compared("other-loss", dlr[steps], pgd[steps])


def _by_steps(white: Mapping[str, AttackSpec], loss: str) -> dict[int, str]:
    """PGD's names by the number of steps; of one start where there are several of a number."""
    pgd = [spec for spec in white.values() if spec.algorithm == "pgd" and spec.params.get("loss") == loss]
    return {spec.steps: spec.name for spec in sorted(pgd, key=lambda spec: -spec.restarts)}


def _autoattack(white: Mapping[str, AttackSpec]) -> str | None:
    algorithms = {ATTACKS[name].algorithm: name for name in AUTOATTACK if isinstance(ATTACKS[name].method, Ensemble)}
    played = {algorithms.get(spec.algorithm, name): name for name, spec in white.items()}
    return next((played[name] for name in AUTOATTACK if name in played), None)


def _strongest(attacks: Sequence[str], cases: Cases, beside: Judged) -> str | None:
    """The white-box attack that leaves the fewest of another case's images standing, if there is one."""
    shares = {
        attack: float(np.mean(cases[attack, ""].on(images)))
        for attack in attacks
        if len(images := common_images([cases[attack, ""], beside]))
    }
    return min(shares, key=shares.__getitem__, default=None)

"""Checks that are statements about verdicts of attacks: each a pure function of what is stored, with an exact test."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmark.diagnose.cases import (
    BLACK_BOX,
    EPSILONS,
    FROM,
    ONE_STEP,
    OTHER_LOSS,
    RANDOM_POINTS,
    RESTARTED,
    SCALED,
    TESTED,
    TWICE,
    UNBOUNDED,
)
from benchmark.diagnose.finding import Measured, gain_check, share_check, unknown
from benchmark.stats.shares import Bools
from benchmark.store.verdicts import Verdicts

Shown = Mapping[str, Verdicts]
"""By role, what a case showed."""
LADDER = (*list(EPSILONS)[:2], TESTED, *list(EPSILONS)[2:], UNBOUNDED)
"""Roles by rising epsilon."""
BESIDE = (TWICE, RESTARTED, SCALED, OTHER_LOSS, *BLACK_BOX)
"""Roles of other attacks on all images, beside transfer."""


def verdict_checks(shown: Shown) -> list[Measured]:
    """All of them; where the attack under test lacks what a check compares, it cannot tell."""
    return [check(shown) for check in CHECKS]


def one_step(shown: Shown) -> Measured:
    """An iterative attack is at least as strong as one step. Source: Carlini et al., arXiv:1902.06705."""
    return _stronger(shown, "one-step", [ONE_STEP], 3.0, "a single step breaks {more}")


def rises_with_epsilon(shown: Shown) -> Measured:
    """Success rises with epsilon. Source: Carlini et al.."""
    ladder = [role for role in LADDER if role in shown]
    steps = list(itertools.pairwise(ladder))
    if not steps:
        return unknown("rises-with-epsilon", "the attack was run at one epsilon only")
    pairs = [_pair([shown[smaller]], shown[larger]) for smaller, larger in steps]
    return _worst("rises-with-epsilon", pairs, [smaller for smaller, _ in steps], 3.0, "at {role} {more} "
                  "than at the next larger epsilon")  # fmt: skip


def unbounded(shown: Shown) -> Measured:
    """Nothing withstands an unbounded attack. Source: Carlini et al.; Pintor et al., arXiv:2106.09947."""
    verdicts = shown.get(UNBOUNDED)
    if verdicts is None or not verdicts.correct.any():
        return unknown("unbounded", "the attack was not run without a bound")
    count, n = int(verdicts.robust_any.sum()), int(verdicts.correct.sum())
    return share_check("unbounded", count, n, 5.0, f"{count} of {n} images withstand any change")


def steps_suffice(shown: Shown) -> Measured:
    """Twice the steps break no more. Source: Carlini et al.."""
    return _stronger(shown, "steps-suffice", [TWICE], 3.0, "twice the steps break {more}")


def starts_agree(shown: Shown) -> Measured:
    """More random starts break no more. Source: Carlini et al.."""
    return _stronger(shown, "starts-agree", [RESTARTED], 10.0, "three times the starts break {more}")


def consistent(shown: Shown) -> Measured:
    """An image broken at some epsilon is broken at each larger one. Source: Carlini et al.."""
    ladder = [role for role in LADDER if role in shown]
    held = [shown[role].robust_any | ~shown[role].correct for role in ladder]
    if len(held) < 2:
        return unknown("consistent", "the attack was run at one epsilon only")
    broken = np.any([~smaller for smaller in held[:-1]], axis=0)
    again = np.any([~smaller & larger for i, smaller in enumerate(held) for larger in held[i + 1 :]], axis=0)
    count, n = int(again.sum()), int(broken.sum())
    if not n:
        return unknown("consistent", "no image was broken at a smaller epsilon")
    words = f"{count} of {n} images broken at some epsilon withstand a larger one"
    return share_check("consistent", count, n, 5.0, words)


def black_box(shown: Shown) -> Measured:
    """A black-box search breaks no more. Source: Carlini et al.; Croce and Hein, arXiv:2003.01690."""
    return _stronger(shown, "black-box", BLACK_BOX, 5.0, "{role} breaks {more}")


def transfer(shown: Shown) -> Measured:
    """A transferred attack breaks no more. Source: Carlini et al.."""
    sources = [role for role in shown if role.startswith(FROM)]
    if not sources:
        return unknown("transfer", "no model to craft the attack on: the suite has no other one")
    return _stronger(shown, "transfer", sources, 3.0, "the attack {role} breaks {more}")


def random_points(shown: Shown) -> Measured:
    """10,000 random points break next to nothing that gradients do not. Source: Carlini et al. ("never"): one image of
    the few that are looked at may be chance, and leaves it open.
    """
    if TESTED not in shown or RANDOM_POINTS not in shown:
        return unknown("random-points", "the attack under test has no such run")
    alone, _, n = _pair([shown[RANDOM_POINTS]], shown[TESTED])
    words = f"random points break {alone} of {n} images that the attack does not"
    return share_check("random-points", alone, n, 1.0, words)


def logit_scaling(shown: Shown) -> Measured:
    """Ten times the logits help no attack. Source: Hitaj et al., arXiv:2103.01914, where GAIRAT loses 10 points."""
    return _stronger(shown, "logit-scaling", [SCALED], 10.0, "ten times the logits break {more}")


def other_loss(shown: Shown) -> Measured:
    """The DLR loss, which no temperature moves, breaks no more. Source: Croce and Hein, arXiv:2003.01690, Section 4.

    One that breaks fewer by the same margin has no way on this model, as where the logits are those of a single class,
    and says nothing of the attack.
    """
    found = _stronger(shown, "other-loss", [OTHER_LOSS], 8.0, "another loss breaks {more}")
    if found.figure is not None and found.margin is not None and found.figure < -found.margin:
        return unknown("other-loss", f"{found.measured}: it does not work on this model")
    return found


def together(shown: Shown) -> Measured:
    """All other attacks together break no more. Source: this project.

    A mask that each of them sees through in part may be beyond chance only here.
    """
    roles = [role for role in shown if role in BESIDE or role.startswith(FROM)]
    if TESTED not in shown or not roles:
        return unknown("together", "the attack under test has nothing beside it")
    alone, beside, n = _pair([shown[role] for role in roles], shown[TESTED])
    words = f"{len(roles)} other attacks together break {alone} of {n} images that it does not, and miss {beside}"
    return gain_check("together", alone, beside, n, 10.0, words)


def silent_success(shown: Shown) -> Measured:
    """What an attack found on its way it has in the end. Source: Pintor et al., arXiv:2106.09947 (silent success)."""
    verdicts = shown.get(TESTED)
    if verdicts is None or verdicts.robust_last is None:
        return unknown("silent-success", "the attack has no last iterate")
    count, n = int((verdicts.robust_last & ~verdicts.robust_any).sum()), int(verdicts.correct.sum())
    words = f"{count} of {n} images were broken on the way and not in the end"
    return share_check("silent-success", count, n, 5.0, words)


CHECKS: Sequence[Callable[[Shown], Measured]] = (
    *(one_step, rises_with_epsilon, unbounded, steps_suffice, starts_agree, consistent),
    *(black_box, transfer, random_points, logit_scaling, other_loss, together, silent_success),
)


def _stronger(shown: Shown, check: str, others: Sequence[str], margin: float, words: str) -> Measured:
    """By how many points one of some runs breaks more than the attack under test, at most."""
    there = [role for role in others if role in shown]
    if TESTED not in shown or not there:
        return unknown(check, "the attack under test has no such run")
    pairs = [_pair([shown[role]], shown[TESTED]) for role in there]
    return _worst(check, pairs, there, margin, words)


def _worst(
    check: str, pairs: Sequence[tuple[int, int, int]], names: Sequence[str], margin: float, words: str
) -> Measured:
    """Of the pairs beyond the margin, or of all where none is, that with the least p; Bonferroni's inequality corrects
    it for their number.

    A pair within the margin may have the least p of all and decides nothing as long as another one is beyond it.
    """
    found = []
    for name, (first, second, n) in zip(names, pairs, strict=True):
        points = 100 * (first - second) / n if n else 0.0
        more = f"{abs(points):.1f} points {'fewer' if points < 0 else 'more'}"
        text = words.format(role=name, more=more)
        measured = f"{text} (alone {first}, the other alone {second}, of {n})"
        found.append(gain_check(check, first, second, n, margin, measured, comparisons=len(pairs)))
    return min(found, key=lambda one: ((one.figure or 0.0) <= margin, 1.0 if one.p is None else one.p))


def _pair(several: Sequence[Verdicts], other: Verdicts) -> tuple[int, int, int]:
    """Of the images that all saw and that are right when clean: those that one of several alone breaks, or the other
    alone; and all.
    """
    common = functools.reduce(np.intersect1d, [one.index for one in several], other.index)
    broken, beside = np.any([_broken(one, common) for one in several], axis=0), _broken(other, common)
    right = other.correct[np.searchsorted(other.index, common)]
    return int((broken & ~beside).sum()), int((beside & ~broken).sum()), int(right.sum())


def _broken(verdicts: Verdicts, images: NDArray[np.int64]) -> Bools:
    broken: Bools = (verdicts.correct & ~verdicts.robust_any)[np.searchsorted(verdicts.index, images)]
    return broken

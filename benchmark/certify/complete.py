"""Complete verification of some images: a short attack, then a solver for the classes that CROWN leaves open."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from attacks import attack
from attacks.judge import wrong_classes
from benchmark.certify.proofs import Asked, Proof, Settings, Subject, least_margin
from benchmark.store.certificates import BROKEN, CERTIFIED, UNKNOWN
from model_zoo.bounds.branches import CLOCK, Branches, tightened
from model_zoo.bounds.crown_margins import best_margins
from model_zoo.bounds.reach import Reach
from model_zoo.bounds.verify import FOUND, INFEASIBLE, Answer, verify

WITNESS_STEPS = 20
"""From the solver's point towards one that a float32 pass misclassifies: at the solver's, two logits may be equal."""
Answers = list[tuple[int, Answer]]
Solve = Callable[[list[Reach], int, list[int]], Answers]
"""What is known of an image's open classes, by the reaches of all nodes, its label and the classes."""


def by_program(subject: Subject, asked: Asked, settings: Settings) -> Proof:
    """A mixed-integer program for each class that CROWN leaves open.

    Source: Tjeng et al., arXiv:1711.07356.
    """

    def solve(reaches: list[Reach], label: int, others: list[int]) -> Answers:
        return verify(subject.program, reaches, label, others, settings["seconds"])

    return _proof(subject, asked, solve)


def by_branches(subject: Subject, asked: Asked, settings: Settings) -> Proof:
    """Branch and bound for each class that CROWN leaves open, with bounds of activations by slopes of their own.

    Source: Wang et al., arXiv:2103.06624.
    """

    def solve(reaches: list[Reach], label: int, others: list[int]) -> Answers:
        end = CLOCK() + settings["seconds"]
        tighter = tightened(subject.network, reaches) if others else reaches
        return verify(Branches(subject.network), tighter, label, others, end - CLOCK(), CLOCK)

    return _proof(subject, asked, solve)


def _proof(subject: Subject, asked: Asked, solve: Solve) -> Proof:
    x, y, threat = asked.x, asked.y, asked.threat
    state = torch.full_like(y, UNKNOWN)
    bound = torch.full((len(y),), math.nan, dtype=torch.float64)
    witness: list[Tensor | None] = [None] * len(y)
    size = subject.batch_size
    shown = attack(
        subject.model, x, y, "pgd-100", epsilon=threat.epsilon, index=asked.index, seed=asked.seed, precision="fp32"
    )
    wrong = wrong_classes(subject.model, x, y, shown.x_adv, threat, batch_size=size) >= 0
    for row in range(len(y)):
        if wrong[row]:
            state[row], witness[row] = BROKEN, shown.x_adv[row]
            continue
        one = asked.of(torch.tensor([row]))
        margins, reaches = best_margins(subject.network, one.box, one.y)
        open_classes = [int(k) for k in margins[0].argsort() if k != y[row] and margins[0, k] <= 0]
        bound[row] = least_margin(margins, one.y)[0]
        answers = solve(reaches, int(y[row]), open_classes)
        if all(answer.outcome == INFEASIBLE for _, answer in answers):
            state[row] = CERTIFIED
        found = [(other, answer) for other, answer in answers if answer.outcome == FOUND]
        for other, answer in found:
            point = _judged(subject, one, other, answer)
            if point is not None:
                state[row], witness[row] = BROKEN, point
    return Proof(state, bound, witness)


def _judged(subject: Subject, one: Asked, other: int, answer: Answer) -> Tensor | None:
    """A point near that of the solver that the judge says is misclassified; None where there is none."""
    assert answer.point is not None
    x_adv = one.threat.project(answer.point.float().unsqueeze(0), one.x)
    for step in range(WITNESS_STEPS):
        if (wrong_classes(subject.model, one.x, one.y, x_adv, one.threat, batch_size=1) >= 0).any():
            return x_adv[0]
        moving = x_adv.clone().requires_grad_()
        with torch.enable_grad():
            logits = subject.model(moving)
            (gradient,) = torch.autograd.grad(logits[0, other] - logits[0, one.y[0]], moving)
        x_adv = one.threat.project(x_adv + one.threat.epsilon / (4 + step) * gradient.sign(), one.x)
    return None

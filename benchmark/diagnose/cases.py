"""The short runs of a diagnosis: the attack under test, and what it is compared with, each an ordinary case."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from attacks.errors import InputError
from attacks.losses import TARGETED_LOSSES
from attacks.registry import attack_spec
from attacks.spec import AttackSpec, Recurrence
from attacks.threat_model import LARGEST_EPSILON, ThreatModel
from benchmark.data.split import Split, balanced_subset
from benchmark.suites.case import ADAPTIVE, EvalCase, with_pass_counts
from benchmark.suites.suite import Suite
from model_zoo.model_spec import ModelSpec

TESTED, ONE_STEP, UNBOUNDED, TWICE, RESTARTED, SCALED, OTHER_LOSS = (
    *("tested", "one-step", "unbounded", "twice the steps", "restarted", "logits x 10", "another loss"),
)
"""The roles of cases, beside those at other epsilons, of black-box attacks and of transfer."""
EPSILONS: Mapping[str, float] = {"epsilon x 1/4": 0.25, "epsilon x 1/2": 0.5, "epsilon x 2": 2.0}
"""Roles at other epsilons: the attack under test at so many times its own."""
BLACK_BOX = ("square-500", "spsa-500", "rays-500")
"""By scores, by estimated gradients and, where the norm is Linf, by labels alone."""
RANDOM_POINTS = "random-points"
FROM = "from "
"""Before the name of the model that a transferred attack was crafted on."""
STARTS = 3
EXAMPLES = 200
"""Images, where nothing else is asked for."""
HIDDEN = 512
"""As many as in the paper of the binarization test; no more than images where their number is chosen."""
EIGHTH, QUARTER = 8, 4
"""Parts of the images: those that random points are tried on, and those that a randomised model is attacked on."""

Roles = Mapping[str, EvalCase]


def how_many(examples: int | None, hidden: int | None) -> tuple[int, int]:
    """Images and hidden points, where one of them or both are not chosen."""
    return examples or EXAMPLES, hidden or min(HIDDEN, examples or HIDDEN)


@dataclass(frozen=True)
class Plan:
    """What is asked of every model.

    Args:
        attack: under test, with the suite's settings.
        epsilon: that it runs at; what it is compared with runs at the suite's.
        examples: how many images; None for all.
        sources: models that transfer attacks are crafted on.
        seed: of all draws.
        hidden: in how many images the binarization test hides a point, at most.
        surrogates: by the name of a model, what the attack searches on in its place: then an adaptive attack is tested.
    """

    attack: AttackSpec
    epsilon: float
    examples: int | None
    sources: Sequence[ModelSpec]
    seed: int
    hidden: int = HIDDEN
    surrogates: Mapping[str, ModelSpec] = field(default_factory=dict)

    def images_for(self, model: ModelSpec, available: int) -> int:
        """How many images the runs on a model see: of a randomised one, whose queries are dear, a quarter."""
        asked = min(self.examples or available, available)
        return max(1, asked // QUARTER) if model.randomized else asked

    def source_of(self, model: ModelSpec) -> ModelSpec:
        """What the attack under test searches on."""
        return self.surrogates.get(model.name, model)

    def attack_on(self, model: ModelSpec) -> str:
        """What the attack under test is called."""
        return f"{self.attack.name}{ADAPTIVE if model.name in self.surrogates else ''}"


def roles(suite: Suite, model: ModelSpec, plan: Plan, split: Split) -> Roles:
    """The cases of one model by their role. Those that the attack under test has no settings for are left out."""
    n = plan.images_for(model, len(split))
    part = max(1, n // EIGHTH)
    digests = {size: balanced_subset(split, size, seed=plan.seed).digest for size in {n, part}}

    def case(attack: AttackSpec, threat: ThreatModel, size: int, source: ModelSpec) -> EvalCase:
        made = EvalCase(suite.name, suite.dataset, digests[size], size, model, source, attack, threat, plan.seed)
        return with_pass_counts(made)

    found = {
        role: case(attack, threat, n, model if attack.is_black_box else plan.source_of(model))
        for role, attack, threat in _runs(suite.threat, plan, split)
    }
    if suite.threat.norm in attack_spec(RANDOM_POINTS).norms:
        found[RANDOM_POINTS] = case(attack_spec(RANDOM_POINTS), suite.threat, part, model)
    for source in plan.sources:
        if source.identity != model.identity and not plan.attack.is_black_box:
            found[f"{FROM}{source.name}"] = case(plan.attack, suite.threat, n, source)
    return found


def _runs(threat: ThreatModel, plan: Plan, split: Split) -> Iterator[tuple[str, AttackSpec, ThreatModel]]:
    """The white-box and black-box runs on all images."""
    own, attack = replace(threat, epsilon=plan.epsilon), plan.attack
    largest = _unbounded(threat.norm, split)
    yield TESTED, attack, own
    for role, factor in EPSILONS.items():
        yield role, attack, replace(threat, epsilon=min(factor * plan.epsilon, largest))
    yield UNBOUNDED, attack, replace(threat, epsilon=largest)
    for name in BLACK_BOX:
        if threat.norm in attack_spec(name).norms:
            yield name, attack_spec(name), threat
    if not isinstance(attack.method, Recurrence):
        return
    if attack.steps > 1 and attack.needs_gradients:
        yield ONE_STEP, attack_spec("fgsm"), own
    yield TWICE, attack.with_settings(name=f"{attack.name}, {2 * attack.steps} steps", steps=2 * attack.steps), own
    if not attack.is_targeted and attack.params.get("start") != "none":
        starts = STARTS * attack.restarts
        yield RESTARTED, attack.with_settings(name=f"{attack.name}, {starts} starts", restarts=starts), own
    if attack.params.get("loss") == "cross-entropy":
        scaled = attack.with_settings(name=f"{attack.name} of 10 x logits", loss="cross-entropy-x10")
        yield SCALED, scaled, own
    other = "cross-entropy" if attack.params.get("loss") == "dlr" else "dlr"
    if attack.can_climb(other):
        yield OTHER_LOSS, attack.with_settings(name=f"{attack.name} by {other}", loss=other), own


def _unbounded(norm: str, split: Split) -> float:
    """A radius that reaches every image, as far as a threat model goes."""
    pixels = math.prod(split.x.shape[1:])
    return min(LARGEST_EPSILON[norm], 1.0 if norm == "Linf" else math.sqrt(pixels))


def require_testable(attack: AttackSpec, *, epsilon: float, attack_epsilon: float) -> None:
    """Raise InputError for an attack that a diagnosis can say nothing about, or one that goes beyond the threat model.

    Args:
        epsilon: of the threat model. attack_epsilon: that the attack runs at.
    """
    if epsilon == 0:
        raise InputError("diagnose: expected an epsilon above 0, got 0: nothing can be broken")
    if attack_epsilon > epsilon:
        raise InputError(
            f"expected an attack at the threat model's epsilon {epsilon:g} or a smaller one, got {attack_epsilon:g}: "
            "what it finds beyond proves nothing; raise the threat model's epsilon, too"
        )
    if attack.is_black_box or attack.params.get("loss") in TARGETED_LOSSES:
        raise InputError(
            f"diagnose asks of an attack by gradients whether it works, got {attack.name}; name one such as pgd-40"
        )

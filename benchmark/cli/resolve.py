"""What the options name: suite and attacks, checked before anything is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from attacks.errors import InputError
from attacks.losses import LOSSES, is_of_features
from attacks.names import lookup
from attacks.registry import ATTACKS, attack_spec, known_attack
from attacks.spec import AttackSpec
from attacks.threat_model import ThreatModel
from benchmark.data.datasets import DATASETS
from benchmark.data.image_readers import CROPS
from benchmark.suites.registry import SUITES, own_suite
from benchmark.suites.suite import TRANSFERRED, Suite


def choose_suite(
    name: str | None,
    dataset: str | None,
    norm: str | None,
    epsilon: float | None,
    examples: int | None,
    *,
    brought: str | None = None,
) -> Suite:
    """The suite named, or that of the dataset, with what the user wants otherwise.

    Args:
        brought: the name of the user's own images, which have a suite of their own where none is named.
    """
    if brought is not None and name is None and dataset is None:
        if epsilon is None:
            raise InputError(f"--data {brought} needs --epsilon, the radius of the threat model, such as 4/255")
        return replace(own_suite(brought, ThreatModel(norm or "Linf", epsilon)), examples=examples)
    if dataset is not None:
        lookup(dataset, {**DATASETS, **CROPS}, "dataset")
    suite = lookup(name or dataset or "digits", SUITES, "suite")
    if brought is None and suite.dataset not in DATASETS:
        raise InputError(f"suite {suite.name} is of images that you bring along; name their folder by --data")
    if dataset not in (None, suite.dataset):
        raise InputError(
            f"suite {suite.name} is of dataset {suite.dataset}, got --dataset {dataset}; leave one of them out"
        )
    if norm not in (None, suite.threat.norm) and epsilon is None:
        raise InputError(f"--norm {norm} needs --epsilon: that of suite {suite.name} is for {suite.threat.norm}")
    threat = ThreatModel(norm or suite.threat.norm, suite.threat.epsilon if epsilon is None else epsilon)
    return replace(suite, threat=threat, examples=examples or suite.examples)


def with_examples(suite: Suite, examples: Mapping[str, int | None]) -> Suite:
    """The suite on other numbers of images: "" for all its attacks, or an attack's name, or "transfer"; None is all."""
    named = {name: wanted for name, wanted in examples.items() if name}
    for name in named:
        if known_attack(name) is None:
            lookup(name, {TRANSFERRED: None, **ATTACKS}, "attack, before the = of --examples")
    if "" in examples:
        suite = replace(suite, examples=examples[""], fewer={})
    limits = {**suite.fewer, **named}
    return replace(suite, fewer={name: limit for name, limit in limits.items() if limit is not None})


def choose_attacks(suite: Suite, names: str) -> list[AttackSpec]:
    """The attacks named, with the suite's settings where it has any."""
    specs = (
        [spec for spec in suite.attacks if suite.threat.family in spec.norms]
        if names == "all"
        else [suite.attack(name) or attack_spec(name) for name in names_in(names)]
    )
    for spec in specs:
        spec.require_norm(suite.threat.norm)
    if not specs:
        raise InputError(
            f"suite {suite.name} has no attack for {suite.threat.norm}; name one of `list attacks` by --attacks"
        )
    return specs


def choose_transfer(
    suite: Suite, names: str | None, attacks: Sequence[AttackSpec], *, has_sources: bool = False
) -> list[AttackSpec]:
    """The attacks to transfer: those named, else those of the suite's that run white-box too.

    Args:
        has_sources: whether models to craft on are named; then all attacks are transferred where the suite has none.
    """
    if names == "none":
        return []
    if names is None:
        return [attack for attack in attacks if attack.name in suite.transfer] or (list(attacks) if has_sources else [])
    return choose_attacks(suite, names)


def with_loss(attacks: Sequence[AttackSpec], loss: str | None) -> list[AttackSpec]:
    """The attacks that climb a loss, climbing this one, under names that say so; as they are where it is None.

    Raises: InputError where none of them can.
    """
    if loss is None:
        return list(attacks)
    if not is_of_features(loss):
        lookup(loss, LOSSES, "loss")
    able = [attack.with_loss(loss) for attack in attacks if attack.can_climb(loss)]
    if attacks and not able:
        raise InputError(
            f"--loss {loss}: expected an attack that can climb it, got {', '.join(attack.name for attack in attacks)}; "
            "name one by --attacks, such as pgd-40, or apgd-t for a loss with targets"
        )
    return able


def choose_adaptive(suite: Suite, names: str, attacks: Sequence[AttackSpec], *, is_users: bool) -> list[AttackSpec]:
    """The attacks that are crafted on surrogates, too: the suite's, of those that are named.

    Args:
        names: of attacks, or "all"; attacks: what they stand for.
        is_users: whether the surrogate is the user's own; then all attacks are, where the suite has none.
    """
    own = list(suite.adaptive) or (list(attacks) if is_users else [])
    if names == "all":
        return own
    wanted = {spec.name: spec for spec in attacks}
    return [spec for spec in own if spec.name in wanted] or (list(attacks) if is_users else [])


def names_in(text: str) -> list[str]:
    """Names in a list with commas, each once."""
    return list(dict.fromkeys(all_names_in(text)))


def all_names_in(text: str) -> list[str]:
    """Names in a list with commas. Raises: InputError for none, and for "all" among others."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"expected names separated by commas, got {text!r}")
    if "all" in names and len(names) > 1:
        raise InputError(f"{text}: 'all' stands alone; leave out it, or the other names")
    return names

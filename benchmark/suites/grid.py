"""The grid of a run: which attack meets which model, from which source, on which images."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from attacks.randomness import JUDGE_DRAWS
from attacks.spec import AttackSpec
from benchmark.data.split import Split, balanced_subset
from benchmark.suites.case import EvalCase, with_pass_counts
from benchmark.suites.suite import Suite
from model_zoo.model_spec import ModelSpec


def cases(
    suite: Suite,
    models: Sequence[ModelSpec],
    attacks: Sequence[AttackSpec],
    transfer: Sequence[AttackSpec],
    split: Split,
    *,
    seed: int,
    sources: Sequence[ModelSpec] | None = None,
    judge_draws: int = JUDGE_DRAWS,
    eot: int | None = None,
    adaptive: Sequence[AttackSpec] = (),
    surrogates: Mapping[str, ModelSpec] = MappingProxyType({}),
) -> list[EvalCase]:
    """The grid: every attack white-box on every model, and the transfer attacks from each of `sources` to all others.

    The adaptive attacks are crafted on a model's own surrogate. Nothing is transferred to a member of its source.

    Args:
        split: the images; attacks in `suite.fewer` see a part of them.
        sources: some of the models, or others, which are not attacked themselves; all of the models if None.
        judge_draws, eot: as for `with_pass_counts`.
        surrogates: by the name of a model, what an adaptive attack on it searches on.
    """
    crafted_on = models if sources is None else sources
    others = [source for source in crafted_on if source not in models]
    grid = [
        (target, source, attack, suite.examples_for(attack.name, is_transfer=source is not target))
        for target in models
        for source in (*models, *others)
        for attack in (attacks if source is target else transfer if source in crafted_on else ())
        if target not in source.members
    ]
    grid += [
        (target, surrogates[target.name], attack, suite.examples_for(attack.name, is_transfer=False))
        for target in models
        if target.name in surrogates
        for attack in adaptive
    ]
    images = {
        examples: split if examples is None else balanced_subset(split, examples, seed=seed)
        for examples in {examples for *_, examples in grid}
    }
    digests = {examples: part.digest for examples, part in images.items()}
    return [
        with_pass_counts(
            EvalCase(
                suite.name,
                suite.dataset,
                digests[examples],
                len(images[examples]),
                target,
                source,
                attack,
                suite.threat,
                seed,
                origin=split.origin,
            ),
            judge_draws=judge_draws,
            eot=eot,
        )
        for target, source, attack, examples in grid
    ]

"""The grid of a run: which attack meets which model, from which source, on which images."""

from collections.abc import Sequence

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
) -> list[EvalCase]:
    """The grid: every attack white-box on every model, and the transfer attacks from each of `sources` to all others.

    Args:
        split: the images; attacks in `suite.fewer` see a part of them.
        sources: some of the models, or others, which are not attacked themselves; all of the models if None.
        judge_draws, eot: as for `with_pass_counts`.
    """
    crafted_on = models if sources is None else sources
    others = [source for source in crafted_on if source not in models]
    grid = [
        (target, source, attack, suite.examples_for(attack.name, is_transfer=source is not target))
        for target in models
        for source in (*models, *others)
        for attack in (attacks if source is target else transfer if source in crafted_on else ())
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
            ),
            judge_draws=judge_draws,
            eot=eot,
        )
        for target, source, attack, examples in grid
    ]

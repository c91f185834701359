"""What the diagnose command does: names to suite, models and attack, and on to the checks and their table."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from attacks.errors import InputError
from benchmark.cli.options import OwnData, OwnModel, Shared
from benchmark.cli.resolve import choose_attacks, choose_suite
from benchmark.cli.resolve_hardware import bring_images, choose_hardware, choose_images, tuned
from benchmark.cli.resolve_models import choose_models, choose_surrogates, without_twins
from benchmark.data.own_images import OwnImages
from benchmark.data.split import balanced_subset
from benchmark.diagnose.cases import Plan, how_many, require_testable
from benchmark.diagnose.run import diagnose_models
from benchmark.report.diagnosis import short_diagnosis, write_diagnoses
from benchmark.report.short import file_list, terminal_width
from benchmark.store.store import Store
from benchmark.suites.suite import Suite
from model_zoo.files.locks import in_use
from model_zoo.model_spec import ModelSpec


def diagnose(
    shared: Shared,
    *,
    models: str | None,
    suite: str | None,
    attack: str,
    attack_epsilon: float | None,
    examples: int | None,
    hidden: int | None,
    adaptive: str | None,
    own: OwnModel,
    own_data: OwnData,
    dataset: str | None,
    norm: str | None,
    epsilon: float | None,
) -> None:
    """Diagnose the attack on each model, write the tables and print them."""
    brought = bring_images(own_data, shared, dataset or suite, own)
    about = {"brought": None if brought is None else brought.name}
    chosen = choose_suite(suite, dataset, norm, epsilon, None, **about)
    tested = choose_attacks(chosen, attack)
    if len(tested) != 1:
        raise InputError(f"--attack takes one attack, got {attack!r}; run diagnose once for each")
    chosen.threat.require_ball("diagnose")
    own_epsilon = chosen.threat.epsilon if attack_epsilon is None else attack_epsilon
    require_testable(tested[0], epsilon=chosen.threat.epsilon, attack_epsilon=own_epsilon)
    specs = without_twins(choose_models(chosen, models, own, shared, brought))
    split = choose_images(chosen, shared, brought, skip_broken=own_data.skip_broken)
    hardware = tuned(choose_hardware(shared), chosen, split, shared)
    images, points = how_many(examples, hidden)
    plan = Plan(
        tested[0],
        own_epsilon,
        images,
        _sources(chosen, shared),
        shared.seed,
        points,
        _surrogates(chosen, specs, adaptive, shared, brought),
    )
    store = Store(shared.results_dir / "runs")
    with in_use(store.root):
        store.open()
        made = diagnose_models(
            chosen,
            specs,
            plan,
            balanced_subset(split, max(images, points), seed=shared.seed),
            store,
            hardware,
            checkpoint_dir=shared.checkpoint_dir,
            quiet=shared.quiet,
        )
        write_diagnoses(store.read_diagnoses(chosen.name), shared.results_dir / chosen.name)
    for one in made:
        print(f"{one.model}: {one.attack}, {one.n} images\n{short_diagnosis(one, terminal_width())}\n")
    print(file_list(shared.results_dir / chosen.name, FILES))


FILES = {
    "diagnosis.md": "all models diagnosed so far; .csv for programs",
    "leaderboard.md": "has the flag not-shown once `run_benchmark.py table` wrote it anew",
}


OF_MASKS = "mask"
"""In place of a user's function: what is known of the models' masks."""


def _surrogates(
    suite: Suite, specs: Sequence[ModelSpec], adaptive: str | None, shared: Shared, brought: OwnImages | None
) -> Mapping[str, ModelSpec]:
    """What the attack searches on in each model's place; the models themselves unless the user says otherwise.

    Raises: InputError for models that have no mask, where those of masks are asked for.
    """
    if adaptive in (None, "none"):
        return {}
    found = choose_surrogates(suite, specs, None if adaptive == OF_MASKS else adaptive, shared, brought)
    if without := [spec.name for spec in specs if spec.name not in found]:
        raise InputError(
            f"--adaptive {adaptive}: expected models with a mask, got {', '.join(without)}; name others by --models, "
            "or give a function, PATH.py:FUNCTION"
        )
    return found


def _sources(suite: Suite, shared: Shared) -> list[ModelSpec]:
    """The models of the suite that transfer attacks are crafted on, as far as their checkpoints are here."""
    found: dict[str, ModelSpec] = {}
    for name in suite.sources:
        with suppress(InputError):
            found[name] = choose_models(suite, name, OwnModel(), shared)[0]
    return list(found.values())

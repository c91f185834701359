"""What the speed command does: one model and its images to contests, and on to the table."""

from attacks.errors import InputError
from attacks.names import check_name, lookup
from attacks.registry import ATTACKS
from benchmark.cli.options import OwnModel, Shared
from benchmark.cli.resolve import choose_suite, names_in
from benchmark.cli.resolve_hardware import choose_hardware, choose_images, tuned
from benchmark.cli.resolve_models import choose_models
from benchmark.evaluation.hardware import describe
from benchmark.evaluation.model_checks import check_images, check_on_fitting_batches
from benchmark.speed.contests import CONTESTS, Arena, measure, write_speed
from benchmark.suites.grid import cases
from benchmark.sweep.prepare import load_on


def speed(
    shared: Shared,
    *,
    models: str | None,
    suite: str | None,
    contests: str,
    rounds: int,
    examples: int,
    own: OwnModel,
    dataset: str | None,
    norm: str | None,
    epsilon: float | None,
    name: str,
) -> None:
    """Measure, write the table and print it."""
    check_name(name, "--name")
    chosen = choose_suite(suite, dataset, norm, epsilon, examples)
    chosen.threat.require_ball("speed")
    entered = CONTESTS if contests == "all" else names_in(contests)
    for contest in entered:
        lookup(contest, dict.fromkeys(CONTESTS), "contest")
    specs = choose_models(chosen, models, own, shared)
    if models and len(specs) > 1:
        raise InputError(f"speed measures one model, got {', '.join(spec.name for spec in specs)}; name one of them")
    spec = next((spec for spec in specs if spec.defense != "natural"), specs[0])
    split = choose_images(chosen, shared)
    hardware = tuned(choose_hardware(shared), chosen, split, shared)
    case = cases(chosen, [spec], [ATTACKS["pgd-20"]], [], split, seed=shared.seed)[0]
    check_images(split)
    network = load_on(hardware, spec, split, shared.checkpoint_dir)
    _, hardware = check_on_fitting_batches(spec.name, network, split, hardware, needs_gradients=True)
    table = measure(Arena(case, network, split, hardware), entered, rounds=rounds, quiet=shared.quiet)
    header = (
        f"{spec.name} ({spec.architecture}) on {len(split)} images of {split.dataset}, {chosen.threat.norm} "
        f"{chosen.threat.epsilon:.5g}; {rounds} rounds; {describe(hardware)}"
    )
    print(write_speed(table, header, shared.results_dir / name))

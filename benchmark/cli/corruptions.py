"""What the corruptions command does: names to suite, models and corruptions, and on to their table."""

from attacks.names import lookup
from benchmark.cli.options import OwnData, OwnModel, Shared
from benchmark.cli.resolve import choose_suite, names_in
from benchmark.cli.resolve_hardware import bring_images, choose_hardware, choose_images, tuned
from benchmark.cli.resolve_models import choose_models, without_twins
from benchmark.corruptions.cases import corruption_store
from benchmark.corruptions.images import COMMON, CORRUPTIONS
from benchmark.corruptions.run import corrupt_models
from benchmark.report.publish import show_corruptions
from benchmark.report.short import file_list
from model_zoo.files.locks import claim, in_use

FILES = {
    "corruptions.md": "accuracy by type and severity",
    "corruptions.csv": "a row a model, corruption and severity",
    "corruptions.json": "the verdicts behind both, packed, with corruptions.bin",
}


def corruptions(
    shared: Shared,
    *,
    models: str | None,
    suite: str | None,
    types: str,
    examples: int | None,
    own: OwnModel,
    own_data: OwnData,
    dataset: str | None,
) -> None:
    """Measure each model under each corruption, write the tables and print the summary."""
    known = {name: name for name in CORRUPTIONS}
    groups = {"all": CORRUPTIONS, "common": COMMON}
    chosen_types = groups.get(types) or [lookup(name, known, "corruption") for name in names_in(types)]
    brought = bring_images(own_data, shared, dataset or suite, own)
    about = {"brought": None if brought is None else brought.name}
    chosen = choose_suite(suite, dataset, None, None if brought is None else 0.0, examples, **about)
    specs = without_twins(choose_models(chosen, models, own, shared, brought))
    split = choose_images(chosen, shared, brought, skip_broken=own_data.skip_broken)
    hardware = tuned(choose_hardware(shared), chosen, split, shared)
    store, folder = corruption_store(shared.results_dir), shared.results_dir / chosen.name
    with in_use(store.root):
        store.open()
        corrupt_models(
            chosen,
            specs,
            chosen_types,
            split,
            store,
            hardware,
            seed=shared.seed,
            checkpoint_dir=shared.checkpoint_dir,
            quiet=shared.quiet,
        )
        with claim(store.root, f"tables {chosen.name}", wait=True):
            print(show_corruptions(store, chosen.name, shared.results_dir))
    print(file_list(folder, FILES))

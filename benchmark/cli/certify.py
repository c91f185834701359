"""What the certify command does: names to suite, models and methods, and on to the certificates and their table."""

from attacks.errors import InputError
from benchmark.certify.methods import choose_methods
from benchmark.certify.run import certify_models
from benchmark.cli.options import OwnData, OwnModel, Shared
from benchmark.cli.resolve import choose_suite, names_in
from benchmark.cli.resolve_hardware import bring_images, choose_hardware, choose_images, tuned
from benchmark.cli.resolve_models import choose_models, without_twins
from benchmark.report.certified import certified_table
from benchmark.report.publish import show_certificates
from benchmark.report.short import file_list
from benchmark.store.certificate_store import CertificateStore
from benchmark.store.store import Store
from model_zoo.files.locks import claim, in_use

FILES = {
    "certified.csv": "a row a model and method",
    "leaderboard.md": "certified, unknown and broken images of models that were attacked, too",
}


def certify(
    shared: Shared,
    *,
    models: str | None,
    suite: str | None,
    method: str,
    examples: int | None,
    steps: int | None,
    seconds: float | None,
    sigma: float | None,
    n0: int | None,
    n: int | None,
    alpha: float | None,
    own: OwnModel,
    own_data: OwnData,
    dataset: str | None,
    norm: str | None,
    epsilon: float | None,
) -> None:
    """Certify each model by each method, write the tables and print what was found."""
    asked: dict[str, float | None] = {"steps": steps, "seconds": seconds}
    asked |= {"sigma": sigma, "n0": n0, "n": n, "alpha": alpha}
    methods = choose_methods(names_in(method), asked)
    brought = bring_images(own_data, shared, dataset or suite, own)
    chosen = choose_suite(suite, dataset, norm, epsilon, examples, brought=None if brought is None else brought.name)
    specs = without_twins(choose_models(chosen, models, own, shared, brought))
    split = choose_images(chosen, shared, brought, skip_broken=own_data.skip_broken)
    hardware = tuned(choose_hardware(shared), chosen, split, shared)
    for one in methods:
        if hardware.device.type != "cpu" and one.name in ("bab", "milp"):
            raise InputError(f"{one.name} runs on the CPU alone, got --device cuda; use --device cpu, or leave it out")
    store = Store(shared.results_dir / "runs")
    with in_use(store.root):
        store.open()
        made = certify_models(
            chosen,
            specs,
            methods,
            split,
            CertificateStore(store.root),
            hardware,
            seed=shared.seed,
            checkpoint_dir=shared.checkpoint_dir,
            quiet=shared.quiet,
        )
        with claim(store.root, f"tables {chosen.name}", wait=True):
            show_certificates(store, chosen.name, shared.results_dir)
    table = certified_table(made)[
        ["model", "method", "epsilon", "n", "certified_acc", "ci_low", "ci_high", "witnesses"]
    ]
    print(table.round(2).to_markdown(index=False))
    print(file_list(shared.results_dir / chosen.name, FILES))

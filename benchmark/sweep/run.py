"""Cases to verdicts in a store, and to what the tables show of them: what the command line and Python both call."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType

from torch import nn

from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from benchmark.store.selection import show
from benchmark.store.store import Store
from benchmark.suites.case import EvalCase
from benchmark.sweep.lacking import lacking_cases
from benchmark.sweep.prepare import prepare
from benchmark.sweep.progress import said_if_slow
from benchmark.sweep.sweep import starting_ray, sweep
from model_zoo.files.locks import claim


def run_cases(
    cases: Sequence[EvalCase],
    ranks: Sequence[Sequence[int]],
    split: Split,
    store: Store,
    hardware: Hardware,
    *,
    reading: str = "any",
    checkpoint_dir: Path = Path(),
    models: Mapping[str, nn.Module] = MappingProxyType({}),
    begin: Callable[[], None] = lambda: None,
    quiet: bool = False,
    is_shown: bool = True,
) -> None:
    """Compute what the store lacks of the cases of one suite, and have its tables show them.

    Args:
        ranks: each case's place in the tables.
        split: the images that all cases attack, or a part of them.
        reading: the iterate that the tables show, "any" or "last".
        checkpoint_dir: where the models' weights are looked for first.
        models: by name, those that are loaded already: on the device, in eval mode, frozen.
        begin: called when everything is checked, before anything is computed.
        is_shown: whether the suite's tables show the cases; those of a diagnosis are for its checks alone.

    Raises: InputError, before any attack, for images or a model that no number would mean anything for.
    """
    suite = cases[0].suite
    missing = lacking_cases(cases, store, hardware)
    names = ", ".join({case.model.name: None for case in missing})
    checking = said_if_slow(f"checking {names}: logits, image gradients and normalisation ...", quiet=quiet)
    with starting_ray(hardware, split) if missing else nullcontext(), checking:
        prepared = prepare(missing, split, store, hardware, checkpoint_dir=checkpoint_dir, models=models)
    if is_shown:
        with claim(store.root, f"suite {suite}", wait=True):
            show(store, suite, reading, cases, ranks, images=split.digest)
    begin()
    sweep(prepared, store, hardware, run=cases, quiet=quiet)

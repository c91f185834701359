"""The command study: one study, or all whose results are missing."""

from collections.abc import Sequence

import torch
from tabulate import tabulate

from attacks.errors import InputError
from attacks.names import lookup
from benchmark.cli.options import Shared
from benchmark.studies.registry import STUDIES
from benchmark.studies.store import comparison_table, is_done, write_study
from benchmark.studies.study import Inputs, Study, chosen_settings

ALL = "all"


def study(shared: Shared, *, name: str, overrides: Sequence[str]) -> None:
    """Compute a study, whether it was before or not; or all that are missing."""
    if name != ALL:
        chosen = lookup(name, STUDIES, "study")
        _run(shared, chosen, overrides)
        return
    if overrides:
        raise InputError("--set is of one study; name it in place of all, or leave the settings out")
    missing = [one for one in STUDIES.values() if not is_done(shared.results_dir, one, seed=shared.seed)]
    if not missing:
        print(f"All {len(STUDIES)} studies are done: {shared.results_dir / 'studies'}")
    for one in missing:
        _run(shared, one, ())


def _run(shared: Shared, chosen: Study, overrides: Sequence[str]) -> None:
    settings = chosen_settings(chosen, overrides)
    if not shared.quiet:
        print(f"{chosen.name}: {chosen.summary} (about {chosen.minutes:g} min)", flush=True)
    torch.set_num_threads(1)  # so that sums are rounded alike, however many cores there are
    inputs = Inputs(shared.data_dir, shared.mirror_dir, shared.results_dir, shared.seed, shared.quiet)
    result = chosen.compute(inputs, **settings)
    page = write_study(shared.results_dir, chosen, settings, shared.seed, result)
    print(f"{result.sentence}\n\n{comparison_table(result)}\n\n{page}")


def studies_table(shared: Shared) -> str:
    """The studies, each with its paper, minutes, settings and whether its results are there."""
    rows = [
        {
            "study": one.name,
            "minutes": one.minutes,
            "done": "yes" if is_done(shared.results_dir, one) else "no",
            "paper": one.paper,
            "settings": " ".join(f"{key}={value:g}" for key, value in one.settings.items()),
            "what": one.summary,
        }
        for one in STUDIES.values()
    ]
    return tabulate(rows, headers="keys", tablefmt="simple")

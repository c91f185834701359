"""Which cases a suite's tables show: new ones are added, and take the place of old ones."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from benchmark.store.shown import Selection, Shown, ShownCase, SuiteRecord
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key


class Readable(Protocol):
    """What scores are read from: a verdict store, or packed verdicts."""

    def shown(self, suite: str) -> Shown:
        """The cases that the tables of a suite show."""

    def read_case(self, key: str) -> dict[str, Any] | None:
        """A case's record: its flags at least; None where there is none."""

    def read(self, key: str, n: int) -> tuple[Verdicts, list[dict[str, Any]]] | None:
        """The verdicts of a case of n images, and the timing of its chunks; None while one is missing."""


def shown_case(case: EvalCase, rank: Sequence[int]) -> ShownCase:
    """What a table says of a case beside its numbers.

    Args:
        rank: its place in the tables, whatever the order in which the user named models and attacks.
    """
    model, attack, source = case.cell
    return ShownCase(
        key=case_key(case),
        rank=tuple(rank),
        suite=case.suite,
        dataset=case.dataset,
        model=model,
        defense=case.model.defense,
        architecture=case.model.network,
        checkpoint_sha256=case.model.sha256,
        networks=_networks(case),
        norm=case.threat.norm,
        epsilon=case.threat.epsilon,
        attack=attack,
        source_model=source,
        n=case.n,
        images=case.images,
        seed=case.seed,
        version=case.attack.version,
        schedule=case.model.schedule,
        judge_draws=case.judge_draws,
        eot=case.eot,
        origin=case.origin,
    )


def show(
    store: Store,
    suite: str,
    reading: str,
    cases: Sequence[EvalCase],
    ranks: Sequence[Sequence[int]],
    *,
    images: str | None = None,
) -> None:
    """Add cases to those that a suite's tables show.

    Tables never mix images, threat models or seeds: each choice of these is a selection, and the newest is shown.
    A cell that is computed again with other settings replaces the old one; another network under a known name replaces
    all cells of the old one, so that no worst case mixes the two; a network under another name than before takes its
    cells along. What of it a user could miss in the tables is said on stderr.

    Args:
        images: digest of the images that the cases attack, all or a part of them; None for those of the first case.
    """
    first = cases[0]
    selection = Selection((images or first.images)[:16], first.threat.norm, first.threat.epsilon, first.seed)
    record = store.read_suite(suite)
    selections = {} if record is None else dict(record.selections)
    networks = {name: network for case in cases for name, network in _networks(case).items()}
    before = selections.get(selection, Shown()).cases
    names = _new_names(before, networks)
    kept = [
        case
        for case in (_renamed(case, names) for case in before)
        if all(networks.get(name, network) == network for name, network in case.networks.items())
    ]
    for old, new in names.items():
        _tell(f"{old} and {new} are one network with the same weights: the rows of {old} are now called {new}")
    if record is not None and (record.shown.images, record.shown.norm) != (selection.images, selection.norm):
        n = len(record.selections[record.shown].cases)
        _tell(
            f"rows of {suite} that are of other images or under another norm, {n} in all, are shown again by such a run"
        )
    added = [shown_case(case, rank) for case, rank in zip(cases, ranks, strict=True)]
    selections[selection] = Shown(reading, tuple({case.cell: case for case in (*kept, *added)}.values()))
    store.write_suite(suite, SuiteRecord(selection, selections))


def _new_names(cases: Sequence[ShownCase], networks: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """By old name, the new ones of networks that a run has under another: verdicts are a network's, whatever its name.

    Args:
        networks: what the names of the run stand for.
    """
    now = {_text(network): name for name, network in networks.items()}
    stood_for = {name: network for case in cases for name, network in case.networks.items()}
    return {
        old: now[_text(network)] for old, network in stood_for.items() if old not in networks and _text(network) in now
    }


def _text(network: Mapping[str, str]) -> str:
    return str(sorted(network.items()))


def _renamed(case: ShownCase, names: Mapping[str, str]) -> ShownCase:
    return replace(
        case,
        model=names.get(case.model, case.model),
        source_model=names.get(case.source_model, case.source_model),
        networks={names.get(name, name): network for name, network in case.networks.items()},
    )


def _tell(line: str) -> None:
    print(f"note: {line}", file=sys.stderr)


def _networks(case: EvalCase) -> dict[str, dict[str, str]]:
    """What the names of a case stand for."""
    return {spec.name: spec.identity for spec in (case.model, case.source)}


SETTING = "device", "precision", "batch_size", "threads", "workers", "versions"
"""What, beside the seconds, is recorded of how a chunk was computed."""


def total_timing(timing: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds add up over chunks; what else differed between them is listed."""
    listed = {name: " | ".join(sorted({str(chunk.get(name, "")) for chunk in timing})) for name in SETTING}
    return {"seconds": round(sum(chunk["seconds"] for chunk in timing), 3), **listed}

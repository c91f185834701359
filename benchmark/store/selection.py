"""What the tables of a suite show: a selection of stored cases, one record a cell."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key

Entry = Mapping[str, Any]
"""One shown case: its key, and the names and settings that its row shows."""


class Readable(Protocol):
    """What scores are read from: a verdict store, or packed verdicts."""

    def read_suite(self, suite: str) -> dict[str, Any] | None: ...
    def read_case(self, key: str) -> dict[str, Any] | None: ...
    def read(self, key: str, n: int) -> tuple[Verdicts, list[dict[str, Any]]] | None: ...


def entry(case: EvalCase, rank: Sequence[int]) -> dict[str, Any]:
    """What a table says of a case beside its numbers.

    Args:
        rank: its place in the tables, whatever the order in which the user named models and attacks.
    """
    model, attack, source = case.cell
    return {
        "key": case_key(case),
        "rank": list(rank),
        "suite": case.suite,
        "dataset": case.dataset,
        "model": model,
        "defense": case.model.defense,
        "architecture": case.model.network,
        "checkpoint_sha256": case.model.sha256,
        "networks": _networks(case),
        "norm": case.threat.norm,
        "epsilon": case.threat.epsilon,
        "attack": attack,
        "source_model": source,
        "n": case.n,
        "images": case.images,
        "seed": case.seed,
        "version": case.attack.version,
        "schedule": case.model.schedule,
        **({"judge_draws": case.judge_draws} if case.judge_draws else {}),
        **({"eot": case.eot} if case.eot > 1 else {}),
    }


def shown_entries(store: Readable, suite: str) -> dict[str, Entry]:
    """The cases that the tables of a suite show, by cell and in display order."""
    shown = store.read_suite(suite) or {}
    entries = shown.get("selections", {}).get(shown.get("shown"), {}).get("entries", {})
    return dict(sorted(entries.items(), key=lambda pair: pair[1]["rank"]))


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
    all cells of the old one, so that no worst case mixes the two.

    Args:
        images: digest of the images that the cases attack, all or a part of them; None for those of the first case.
    """
    first = cases[0]
    chosen = f"{(images or first.images)[:16]} {first.threat.norm} {first.threat.epsilon} seed {first.seed}"
    record = store.read_suite(suite) or {"selections": {}}
    selection = record["selections"].setdefault(chosen, {"entries": {}})
    selection["reading"] = reading
    networks = {name: network for case in cases for name, network in _networks(case).items()}
    selection["entries"] = {
        cell: item
        for cell, item in selection["entries"].items()
        if all(networks.get(name, network) == network for name, network in item.get("networks", {}).items())
    }
    for case, rank in zip(cases, ranks, strict=True):
        selection["entries"]["/".join(case.cell)] = entry(case, rank)
    store.write_suite(suite, {**record, "shown": chosen})


def _networks(case: EvalCase) -> dict[str, dict[str, str]]:
    """What the names of a case stand for."""
    return {spec.name: spec.identity for spec in (case.model, case.source)}


def total_timing(timing: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds add up over chunks; what else differed between them is listed."""
    listed = {
        name: " | ".join(sorted({str(chunk.get(name, "")) for chunk in timing}))
        for name in ("device", "precision", "batch_size", "threads", "workers", "versions")
    }
    return {"seconds": round(sum(chunk["seconds"] for chunk in timing), 3), **listed}

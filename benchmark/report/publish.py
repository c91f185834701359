"""What a results folder shows: tables, pictures and packed verdicts of a suite, from the store or from git."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from attacks.errors import InputError
from benchmark.corruptions.cases import corruption_store
from benchmark.report.certified import noted_certified, notes_of_certified, together, write_certified
from benchmark.report.corruptions import write_corruptions
from benchmark.report.diagnosis import noted_diagnoses, notes_of, write_diagnoses
from benchmark.report.image_examples import example_images, write_examples
from benchmark.report.latex_tables import papers_latex
from benchmark.report.leaderboard import leaderboard
from benchmark.report.other_selections import epsilon_table, other_selections, rows_beside, selection_name
from benchmark.report.own_images import class_names
from benchmark.report.papers import paper_table, papers_markdown
from benchmark.report.score import SuiteScores, score_suite
from benchmark.report.short import LEGEND, file_list, short_board, terminal_width, wrapped
from benchmark.report.tables import READINGS, what_was_attacked, write_csv, write_latex, write_tables
from benchmark.store.certificate_store import CertificateStore
from benchmark.store.certificates import Certified
from benchmark.store.diagnosis import Diagnosis
from benchmark.store.packed import Packed, gather, read_packed, write_packed
from benchmark.store.shown import Shown
from benchmark.store.store import Store
from benchmark.suites.published import ROWS, UNMEASURED
from benchmark.suites.registry import SUITES
from benchmark.suites.suite import Suite
from model_zoo.files.atomic import atomic_write, file_of

VERDICTS = "verdicts"
"""The folder of the packed verdicts, beside those of the tables."""
CORRUPTIONS = "corruptions"
"""The name of a suite's tables of corruptions, and of the verdicts packed beside them."""
SEPARATOR = "@"
"""Between the name of a suite and what another selection of it differs in."""


def rebuild_tables(results_dir: Path) -> None:
    """Write tables and pictures of every suite, from the store where it has the suite, else from packed verdicts."""
    store, folder = Store(results_dir / "runs"), results_dir / VERDICTS
    store.check()
    there = store.suites()
    packed = sorted({path.stem.partition(SEPARATOR)[0] for path in folder.glob("*.json")} - set(there))
    certificates, corrupted = CertificateStore(store.root), corruption_store(results_dir)
    with_corruptions = dict.fromkeys(
        [*corrupted.suites(), *sorted(path.parent.name for path in results_dir.glob(f"*/{CORRUPTIONS}.json"))]
    )
    if not (with_corruptions or there or packed or store.diagnosed_suites() or certificates.suites()):
        raise InputError(
            f"expected verdicts in {store.root}, found none, nor packed ones in {folder}; "
            "run a benchmark first, or name --results-dir"
        )
    for suite in there:
        print_tables(store, suite, results_dir, with_pictures=True)
    for suite in (name for name in store.diagnosed_suites() if name not in there):
        write_diagnoses(store.read_diagnoses(suite), results_dir / suite)
        print(f"Diagnoses: {results_dir / suite / 'diagnosis.md'}")
    for suite in (name for name in certificates.suites() if name not in (*there, *packed)):
        _write_certified_alone(certificates.shown(suite), suite, results_dir / suite)
        print(f"Certificates: {results_dir / suite / 'certified.csv'}")
    for suite in packed:
        _show_packed(store, suite, results_dir, with_pictures=True)
        print(f"made of {folder / suite}.json")
    for suite in with_corruptions:
        show_corruptions(corrupted, suite, results_dir)
        print(f"Corruptions: {results_dir / suite / f'{CORRUPTIONS}.md'}")


def show_corruptions(store: Store, suite: str, results_dir: Path) -> str:
    """Write what models answer under corruptions, packed beside the tables. Returns: the text of the summary.

    Args:
        store: of corruptions; what it lacks of a suite is what is packed there already.
    """
    stem = results_dir / suite / CORRUPTIONS
    there = _packed_there(stem.parent, CORRUPTIONS)
    record = store.read_suite(suite)
    if record is None:
        packed = there[file_of(stem, ".json")]
    else:
        packed = _with_rows_of(there, gather(store, suite, selection=record.shown), store.shown(suite))
        write_packed(packed, stem)
    return write_corruptions(score_suite(packed, suite), stem.parent)


def show_certificates(store: Store, suite: str, results_dir: Path) -> None:
    """Write what is certified of a suite, and all tables where something of it was attacked, too."""
    certified, folder = CertificateStore(store.root).shown(suite), results_dir / VERDICTS
    if store.read_suite(suite) is not None:
        print_tables(store, suite, results_dir)
    elif (folder / f"{suite}.json").is_file():
        _show_packed(store, suite, results_dir, with_pictures=False)
    else:
        write_certified(certified, results_dir / suite)


def _show_packed(store: Store, suite: str, results_dir: Path, *, with_pictures: bool) -> None:
    """Write everything of a suite whose verdicts are packed alone; what is certified since is packed, too."""
    folder = results_dir / VERDICTS
    others = [read_packed(path) for path in sorted(folder.glob(f"{suite}{SEPARATOR}*.json"))]
    packed, own = read_packed(folder / f"{suite}.json"), CertificateStore(store.root).shown(suite)
    if own:
        proven = together(own, noted_certified(packed.notes))
        packed = replace(packed, notes={**packed.notes, **notes_of_certified(proven)})
    _write_all(packed, others, results_dir, with_pictures=with_pictures)
    if own:
        write_packed(packed, folder / suite)


def _write_certified_alone(certified: Sequence[Certified], suite: str, folder: Path) -> None:
    """Write what is certified of a suite of which nothing was attacked, with smoothing's picture."""
    from benchmark.report.plots import write_certified_picture

    write_certified(certified, folder)
    write_certified_picture(certified, suite, folder / "pictures")


def write_published(results_dir: Path) -> None:
    """Write the papers' figures of suites that have no tables yet, with the commands that measure them."""
    for name in dict.fromkeys(row.suite for row in ROWS):
        folder = results_dir / name
        if not (folder / "scores.csv").exists():
            papers = paper_table(score_suite(Packed(name, "last", {}), name))
            what = f"{UNMEASURED.get(name) or _threat(SUITES[name])}; accuracies in percent."
            text = f"## Beside the papers: {name}\n\n{what}\n\n{papers_markdown(papers, name)}\n"
            atomic_write(folder / "papers.md", text.encode())
            write_csv(folder / "papers.csv", papers.round(4))
            write_latex(folder / "papers.tex", papers_latex(papers), f"Beside the papers: {name}. {what}")
            print(f"Published figures: {folder / 'papers.md'}")


def _threat(suite: Suite) -> str:
    return f"{suite.dataset}, {suite.threat.norm} {suite.threat.epsilon:.6g}"


def _write_all(
    packed: Packed,
    others: Sequence[Packed],
    results_dir: Path,
    *,
    with_pictures: bool,
    triples: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write everything that can be made of a suite's verdicts, and print the leaderboard in short."""
    diagnoses, certified = noted_diagnoses(packed.notes), noted_certified(packed.notes)
    folder, suite = results_dir / packed.suite, score_suite(packed, packed.suite, diagnoses, certified)
    beside = [score_suite(other, other.suite) for other in others]
    files = write_tables(suite, folder, others=beside, triples=triples)
    if not files:
        print(f"No case of suite {suite.suite} is complete yet; run the benchmark again to go on.")
        return
    write_diagnoses(diagnoses, folder)
    write_certified(certified, folder)
    board = leaderboard(suite)
    write_examples(triples, folder / "examples")
    if with_pictures:
        from benchmark.report.plots import write_pictures

        pictures = write_pictures(suite, board, epsilon_table(suite, beside), folder / "pictures")
        files |= {"pictures/": f"{len(pictures)} pictures"} if pictures else {}
    print(_summary(suite, board, folder, files))


def _summary(suite: SuiteScores, board: pd.DataFrame, folder: Path, files: Mapping[str, str]) -> str:
    """What the terminal shows of a suite: the leaderboard in short, what its words mean, where the rest is."""
    width = terminal_width()
    head = wrapped(f"{suite.suite}: {what_was_attacked(suite)}", width)
    notes = wrapped(f"{READINGS[suite.reading]} {LEGEND}", width)
    return "\n".join([head, "", short_board(board, width), "", notes, "", file_list(folder, files)])


def print_tables(store: Store, suite: str, results_dir: Path, *, with_pictures: bool = False) -> None:
    """Write and print the tables of a suite, pack its verdicts, and say which cases are not in them."""
    folder = results_dir / VERDICTS
    there = _packed_there(folder, suite)
    record = store.read_suite(suite)
    complete = gather(store, suite, selection=None if record is None else record.shown)
    packed = _with_rows_of(there, complete, store.shown(suite), tells=True)
    proven = together(CertificateStore(store.root).shown(suite), _noted(there))
    packed = replace(packed, notes={**notes_of(_diagnoses(store, suite, there)), **notes_of_certified(proven)})
    selected = other_selections(store, suite)
    gathered = {name: gather(other, suite, selection=other.selection) for name, other in selected.items()}
    others = {
        name: _with_rows_of(there, other, selected[name].shown(suite))
        for name, other in gathered.items()
        if other.cases
    }
    others = {**_beside(there, packed), **others}
    datasets = [case.entry.dataset for case in packed.cases.values()]
    triples = example_images(store, suite, class_names(results_dir / suite, datasets[0]) if datasets else ())
    _write_all(packed, list(others.values()), results_dir, with_pictures=with_pictures, triples=triples)
    if packed.cases:
        for stale in folder.glob(f"{suite}{SEPARATOR}*"):
            stale.unlink()
        for name, one in ((suite, packed), *((f"{suite}{SEPARATOR}{name}", other) for name, other in others.items())):
            write_packed(one, folder / name)
    if incomplete := [case.cell for case in store.shown(suite).cases if case.key not in packed.cases]:
        print(
            f"left out of {suite}: {len(incomplete)} cases without all their verdicts "
            f"({', '.join(incomplete[:5])}{', ...' if len(incomplete) > 5 else ''}); run them again",
            file=sys.stderr,
        )


def _diagnoses(store: Store, suite: str, there: Mapping[Path, Packed]) -> list[Diagnosis]:
    """What the store has of diagnoses, and what is packed of networks that the store has none of."""
    own = store.read_diagnoses(suite)
    packed = [one for before in there.values() for one in noted_diagnoses(before.notes)]
    known = [one.network for one in own]
    return sorted([*own, *(one for one in packed if one.network not in known)], key=lambda one: one.model)


def _noted(there: Mapping[Path, Packed]) -> list[Certified]:
    """What is packed of certificates."""
    return [one for before in there.values() for one in noted_certified(before.notes)]


def _packed_there(folder: Path, suite: str) -> dict[Path, Packed]:
    """What is packed of a suite, by its file: what was shown first, then other selections; none without cases."""
    paths = [folder / f"{suite}.json", *sorted(folder.glob(f"{suite}{SEPARATOR}*.json"))]
    found = {path: read_packed(path) for path in paths if path.is_file()}
    return {path: packed for path, packed in found.items() if packed.cases}


def _beside(there: Mapping[Path, Packed], shown: Packed) -> dict[str, Packed]:
    """Packed selections of the same images and norm as those shown, from a store that this one may not be."""
    found = (rows_beside(one, shown) for one in there.values() if shown.cases)
    return {selection_name(one): one for one in found if one.cases}


def refuse_to_replace(store: Store, suite: str, results_dir: Path, *, images: str, norm: str) -> None:
    """Raise InputError where tables are of other images or another norm than a run, and the store has not theirs.

    Args:
        images: digest of all images of the run.
        norm: of its threat model.
    """
    path = results_dir / VERDICTS / f"{suite}.json"
    before = read_packed(path) if path.exists() else None
    if before is None or not before.cases:
        return
    shown, record = before.selected, store.read_suite(suite)
    is_same = (shown.images, shown.norm) == (images[:16], norm)
    is_there = record is not None and shown in record.selections
    lost = [key for key, case in before.cases.items() if not (is_there and store.read(key, len(case.index)))]
    if lost and not is_same:
        raise InputError(
            f"the tables in {results_dir / suite} are of other images or another norm, and would lose "
            f"{len(lost)} of their {len(before.cases)} rows, whose verdicts are not in {store.root}; "
            "use another --results-dir"
        )


def _with_rows_of(there: Mapping[Path, Packed], packed: Packed, shown: Shown, *, tells: bool = False) -> Packed:
    """What a store has, and of packed verdicts of the same selection the cells that the store has not.

    Args:
        packed: the complete cases of the store; there may be none yet.
        shown: all of its cases, complete or not: rows of a name that stands for another network now are not kept.
        tells: say on stderr how many rows are packed ones.
    """
    is_selected = packed.selection is not None or packed.cases
    same = [path for path, before in there.items() if is_selected and before.selected == packed.selected]
    if not same:
        return packed
    path, before = same[0], there[same[0]]
    cells = {case.entry.cell for case in packed.cases.values()}
    networks = {name: network for entry in shown.cases for name, network in entry.networks.items()}
    kept = {
        key: case
        for key, case in before.cases.items()
        if case.entry.cell not in cells
        and all(networks.get(name, network) == network for name, network in case.entry.networks.items())
    }
    if kept and tells:
        print(f"note: {len(kept)} rows are those of {path}, which this store lacks", file=sys.stderr)
    in_order = sorted({**kept, **packed.cases}.items(), key=lambda item: item[1].entry.rank)
    return replace(packed, cases=dict(in_order))

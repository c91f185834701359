"""What the store commands do: verify, missing and gc."""

import functools
import sys

from tabulate import tabulate
from tqdm import tqdm

from attacks.errors import InputError
from benchmark.cli.options import Shared
from benchmark.store.audit import Fault, case_faults, incomplete_cases, suite_faults, temporary_files, unshown_cases
from benchmark.store.certificate_audit import certificate_faults, shown_faults
from benchmark.store.certificate_store import CertificateStore
from benchmark.store.store import Store, discard
from benchmark.sweep.local_pool import run_map
from model_zoo.files.locks import alone

NAMED_CASES = 20
"""How many cases `verify` names; `missing` names all."""


def verify_store(shared: Shared) -> None:
    """Read every file of the store, name what is wrong, and say what is not there yet."""
    from benchmark.cli.resolve_hardware import processes

    store = _store(shared)
    certificates = CertificateStore(store.root)
    keys, faults = store.case_keys(), suite_faults(store)
    incomplete = [] if faults else list(incomplete_cases(store))
    count = "not looked for" if faults else len(incomplete)
    chunks = 0
    audited = run_map(functools.partial(_audited, store), keys, processes(shared))
    for found, read in tqdm(audited, total=len(keys), unit="case", disable=shared.quiet):
        faults += found
        chunks += read
    of_certificates = _certificate_faults(certificates)
    faults += of_certificates
    for fault in faults:
        print(f"{fault.path}: {fault.what}")
    for case in incomplete[:NAMED_CASES]:
        print(case)
    proven = f", {len(certificates.case_keys())} cases of certificates" if certificates.case_keys() else ""
    print(
        f"{store.root}: {len(keys)} cases, {chunks} chunks{proven}, {len(faults)} faults, {count} shown cases "
        f"incomplete, {len(temporary_files(shared.results_dir))} temporary files"
    )
    if faults or incomplete:
        first = "remove the faulty files by 'store gc', and " if any(fault.removable for fault in faults) else ""
        what = "the sweeps and certify" if of_certificates else "the sweeps"
        print(f"{first}run {what} again: they compute what lacks")
        sys.exit(1)


def _audited(store: Store, key: str) -> tuple[list[Fault], int]:
    """What is wrong with a case, and how many chunks were read."""
    return case_faults(store, key), len(list(store.chunks(key)))


def _certificate_faults(store: CertificateStore) -> list[Fault]:
    """What is wrong with all certificates, and with what the suites show of them."""
    return [*shown_faults(store), *(fault for key in store.case_keys() for fault in certificate_faults(store, key))]


def list_missing(shared: Shared) -> None:
    """A table of the cases that lack chunks or their record."""
    rows = [vars(case) for case in incomplete_cases(_store(shared))]
    print(tabulate(rows, headers="keys") if rows else "Nothing is missing.")


def collect_garbage(shared: Shared, *, dry_run: bool, unshown: bool) -> None:
    """Remove temporary files, faulty chunks and second copies; on demand what no table shows."""
    store = _store(shared)
    with alone(store.root):
        unwanted = unshown_cases(store) if unshown else ()
        garbage = [Fault(path, "left by a process that was killed") for path in temporary_files(shared.results_dir)]
        for key in tqdm(store.case_keys(), unit="case", disable=shared.quiet):
            if key in unwanted:
                garbage.append(Fault(store.root / "cases" / key, "no table shows it"))
            else:
                garbage += [fault for fault in case_faults(store, key) if fault.removable]
        garbage += [fault for fault in _certificate_faults(CertificateStore(store.root)) if fault.removable]
        for fault in garbage:
            print(f"{'would remove' if dry_run else 'removed'} {fault.path}: {fault.what}")
            if not dry_run:
                discard(fault.path)
    print(f"{store.root}: {len(garbage)} {'to remove' if dry_run else 'removed'}")


def _store(shared: Shared) -> Store:
    """The store of the results folder. Raises: InputError where there is none, or one that cannot be read."""
    store = Store(shared.results_dir / "runs")
    if not store.root.is_dir():
        raise InputError(f"expected verdicts in {store.root}, found no such folder; name another --results-dir")
    store.check()
    return store

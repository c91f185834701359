"""What is wrong with the certificates of a store. Reads everything, trusts nothing, changes nothing."""

from collections.abc import Iterator
from pathlib import Path

from benchmark.store.audit import Fault, record_faults
from benchmark.store.certificate_store import CertificateStore
from benchmark.store.certificates import BROKEN, CERTIFIED, Certificates, certified_from, unpack_certificates
from benchmark.store.chunk import Range, whole_content
from benchmark.store.sealed import read_sealed


def certificate_faults(store: CertificateStore, key: str) -> Iterator[Fault]:
    """What is wrong with a case of certificates and its chunks."""
    path = store.root / "certificates" / key / "case.json"
    yield from record_faults(path, read_sealed(path), key)
    sound: dict[Range, Path] = {}
    for chunk, path in store.chunks(key):
        content = whole_content(path)
        try:
            if content is None:
                raise ValueError("damaged: its content is not what its name says")
            _check(unpack_certificates(content, key, chunk)[0])
        except ValueError as error:
            yield Fault(path, str(error))
            continue
        if chunk in sound:
            yield Fault(path, "a second file of the same images")
        sound[chunk] = path


def _check(certificates: Certificates) -> None:
    """Raise ValueError for certificates that contradict themselves."""
    state, is_right = certificates.state, certificates.label == certificates.prediction
    if ((state == CERTIFIED) & ~is_right).any():
        raise ValueError("images that are certified though they are misclassified when clean")
    if any((one is not None) != (found == BROKEN) for one, found in zip(certificates.witness, state, strict=True)):
        raise ValueError("broken images without a witness, or a witness of images that are not")


def shown_faults(store: CertificateStore) -> Iterator[Fault]:
    """Records of what the suites show of certificates that are damaged; `certify` writes them again."""
    for path in sorted((store.root / "certified").glob("*/*.json")):
        record = read_sealed(path)
        try:
            if record is None:
                raise ValueError("damaged")
            certified_from(record)
        except ValueError as error:
            yield Fault(path, str(error))

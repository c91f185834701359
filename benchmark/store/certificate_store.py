"""Certificates in the verdict store: chunks by case, and what each suite shows.

runs/certificates/KEY/case.json                   what the case is
runs/certificates/KEY/START-STOP.SHA256.parquet   the certificates of images START to STOP
runs/certified/SUITE/PLACE.json                   what a suite shows of one model by one method
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attacks.errors import InputError
from attacks.threat_model import ThreatModel
from benchmark.store.certificates import (
    CERTIFIED,
    Certificates,
    Certified,
    certified_from,
    joined,
    pack_certificates,
    unpack_certificates,
)
from benchmark.store.chunk import CHUNK_NAME, Range, whole_content
from benchmark.store.sealed import digest_of, read_sealed, sealed, write_or_say
from benchmark.store.store import discard

CHUNK = 50
"""Images of a chunk of certificates, which cost more than an attack."""


def certificate_chunks(n: int) -> list[Range]:
    """The chunks of n images, as (start, stop)."""
    return [(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


@dataclass(frozen=True)
class CertificateStore:
    """The part of a verdict store that holds certificates.

    Args:
        root: the folder `runs`.
    """

    root: Path

    def write_case(self, key: str, identity: Mapping[str, Any]) -> None:
        """What a case is."""
        write_or_say(self._case(key) / "case.json", sealed({"identity": dict(identity)}))

    def absent(self, key: str, n: int) -> list[Range]:
        """The chunks that are not there; damaged ones are named and removed."""
        there = set()
        for chunk, path in self.chunks(key):
            if whole_content(path) is None:
                print(f"damaged chunk, will be computed again: {path}", file=sys.stderr)
                discard(path)
            else:
                there.add(chunk)
        return [chunk for chunk in certificate_chunks(n) if chunk not in there]

    def write_chunk(self, key: str, chunk: Range, certificates: Certificates, timing: Mapping[str, Any]) -> None:
        """Write a chunk, with how long it took."""
        name, content = pack_certificates(key, chunk, certificates, timing)
        if chunk not in {found for found, _ in self.chunks(key)}:
            write_or_say(self._case(key) / name, content)

    def read_chunk(self, key: str, chunk: Range) -> tuple[Certificates, dict[str, Any]] | None:
        """The certificates of a chunk, and how long they took; None where it is missing or damaged.

        Raises: InputError for a chunk that is as it was written, and yet no certificates of these images.
        """
        for found, path in self.chunks(key):
            content = whole_content(path) if found == chunk else None
            if content is not None:
                try:
                    return unpack_certificates(content, key, chunk)
                except ValueError as error:
                    raise InputError(f"{path}: {error}; remove it and certify again") from None
        return None

    def read(self, key: str, n: int) -> tuple[Certificates, float] | None:
        """All certificates of a case, and the seconds that they took; None while a chunk is missing."""
        parts = [self.read_chunk(key, chunk) for chunk in certificate_chunks(n)]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            return None
        return joined([part for part, _ in whole]), sum(timing["seconds"] for _, timing in whole)

    def show(self, suite: str, certified: Certified) -> Certified:
        """Have a suite's tables show what is certified of a model, with what they showed of it in the same place.

        Returns: what they show now.
        """
        path = self._place(suite, certified)
        for other in sorted(path.parent.glob("*.json")):
            before = _read(other)
            if before is not None and before.place == certified.place:
                certified = both(certified, before)
                if other != path:
                    discard(other)  # from before settings were part of the place
        write_or_say(path, sealed(certified.to_dict()))
        return certified

    def _place(self, suite: str, certified: Certified) -> Path:
        return self.root / "certified" / suite / f"{digest_of(certified.place)}.json"

    def shown(self, suite: str) -> list[Certified]:
        """What the tables of a suite show, by model and method. Raises: InputError for a damaged record."""
        found = []
        for path in sorted((self.root / "certified" / suite).glob("*.json")):
            record = read_sealed(path)
            try:
                if record is None:
                    raise ValueError("expected a record with its checksum, got a damaged file")
                found.append(certified_from(record))
            except ValueError as error:
                raise InputError(
                    f"{path}: {error}; remove it and certify again: no certificate is lost, and none computed again"
                ) from None
        return in_order(found)

    def case_keys(self) -> Sequence[str]:
        """The cases that there is anything of."""
        return sorted(path.name for path in (self.root / "certificates").glob("*") if path.is_dir())

    def suites(self) -> Sequence[str]:
        """The suites of which something is certified."""
        return sorted(path.name for path in (self.root / "certified").glob("*") if any(path.glob("*.json")))

    def chunks(self, key: str) -> Iterator[tuple[Range, Path]]:
        """The files of a case's chunks, whole or not."""
        folder = self._case(key)
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if match := CHUNK_NAME.fullmatch(path.name):
                yield (int(match[1]), int(match[2])), path

    def _case(self, key: str) -> Path:
        return self.root / "certificates" / key


def in_order(certified: Sequence[Certified]) -> list[Certified]:
    """By model, method and epsilon."""
    return sorted(certified, key=lambda one: (one.model, one.method, one.epsilon, str(one.place)))


class ContradictionError(InputError):
    """An image is both certified and broken."""


def _read(path: Path) -> Certified | None:
    """What a record says; None for a damaged one."""
    record = read_sealed(path)
    try:
        return None if record is None else certified_from(record)
    except ValueError:
        return None


def both(newer: Certified, earlier: Certified) -> Certified:
    """What either of two runs of the same place proves. Raises: ContradictionError where the two contradict."""
    try:
        return newer.with_earlier(earlier)
    except ValueError as error:
        raise ContradictionError(f"{error}; report it, with the folder of the verdict store") from None


def proven_images(
    certified: Sequence[Certified],
    network: Mapping[str, str],
    threat: ThreatModel,
    images: str = "",
    origin: str = "",
) -> NDArray[np.int64]:
    """(M,) the indices of the images that a deterministic method certifies of a network, in this ball at least.

    Args:
        images: digest of the images that are asked for; origin: of the whole that they are from.
    """
    found = [
        one.index[one.state == CERTIFIED]
        for one in certified
        if one.is_deterministic
        and dict(one.network) == dict(network)
        and one.is_of(images, origin)
        and one.holds_in(threat)
    ]
    return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)


def refuse_contradiction(where: str, broken: NDArray[np.int64], proven: NDArray[np.int64]) -> None:
    """Raise ContradictionError where an image is both, and name it.

    Args:
        where: what was found broken, for the message: MODEL: ATTACK.
        broken, proven: indices of images.
    """
    both = np.intersect1d(broken, proven)
    if len(both):
        named = ", ".join(map(str, both[:5])) + (", ..." if len(both) > 5 else "")
        raise ContradictionError(
            f"{where}: {len(both)} images are certified and broken (index {named}); one of the two is wrong: "
            "report it, with the folder of the verdict store"
        )

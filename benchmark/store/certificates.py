"""Certificates: what is proven of each image of a model by one method, and what of it a suite shows."""

import base64
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from attacks.threat_model import ThreatModel
from benchmark.stats.shares import Bools
from benchmark.store.chunk import Range, checksum, stem

UNKNOWN, CERTIFIED, BROKEN = 0, 1, 2
"""What a method says of an image: nothing; that it is robust; that it is not, with a witness that was judged."""
COLUMNS = {
    "index": pa.int64(),
    "label": pa.int64(),
    "prediction": pa.int64(),
    "state": pa.int64(),
    "bound": pa.float64(),
    "witness": pa.binary(),
}


@dataclass(frozen=True)
class Certificates:
    """What a method said of some images, one row an image, in the order of the images.

    Args:
        index: (N,) int64, the image's index in its dataset. label: (N,) int64.
        prediction: (N,) int64, the class of the clean image; of smoothing that of the smoothed classifier, -1 where
            it abstains.
        state: (N,) int64, `UNKNOWN`, `CERTIFIED` or `BROKEN`; an image that is misclassified when clean is unknown.
        bound: (N,) float64, the greatest lower bound that was found of the least margin; of smoothing the L2 radius.
            NaN where none was asked for.
        witness: for each image a misclassified point of its ball, as the bytes of float32; None where there is none.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    state: NDArray[np.int64]
    bound: NDArray[np.float64]
    witness: Sequence[bytes | None]


def pack_certificates(
    key: str, chunk: Range, certificates: Certificates, timing: Mapping[str, Any]
) -> tuple[str, bytes]:
    """The name and the content of the file for a chunk of a case."""
    columns = {name: pa.array(getattr(certificates, name), kind) for name, kind in COLUMNS.items()}
    table, buffer = pa.table(columns), io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"timing": json.dumps(timing), "case": key, "images": stem(chunk)})
    content = buffer.getvalue()
    return f"{stem(chunk)}.{checksum(content)}.parquet", content


def unpack_certificates(content: bytes, key: str, chunk: Range) -> tuple[Certificates, dict[str, Any]]:
    """What `pack_certificates` wrote. Raises: ValueError, in one line, for anything else."""
    try:
        table = pq.read_table(pa.BufferReader(content), use_threads=False)
        metadata = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
        columns = {name: table[name] for name in COLUMNS}
        timing, written = json.loads(metadata["timing"]), (metadata["case"], metadata["images"], table.num_rows)
        if any(column.type != COLUMNS[name] for name, column in columns.items()):
            raise TypeError("columns of other types")
        arrays: dict[str, Any] = {
            name: column.to_pylist() if name == "witness" else column.to_numpy() for name, column in columns.items()
        }
    except (pa.ArrowException, OSError, LookupError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"chunk {stem(chunk)} of certificates is unreadable ({type(error).__name__})") from None
    if written != (key, stem(chunk), chunk[1] - chunk[0]):
        raise ValueError(f"chunk {stem(chunk)} holds {written[2]} images {written[1]} of case {written[0]}")
    return Certificates(**arrays), timing


def joined(parts: Sequence[Certificates]) -> Certificates:
    """Those of several chunks, one after the other."""
    arrays: dict[str, Any] = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Certificates)
        if field.name != "witness"
    }
    return Certificates(**arrays, witness=[one for part in parts for one in part.witness])


@dataclass(frozen=True)
class Certified:
    """What a suite shows of the certificates of one model by one method.

    Args:
        model: its name. network: what the name stood for, as in `ShownCase.networks`.
        method: its name; version: of the method; settings: in a few words.
        is_deterministic: whether it is a proof about the model itself, and not, but for a probability of alpha, about
            the model smoothed.
        norm, epsilon: the threat model. seed: of all draws.
        images: digest of the images. origin: of the whole that they were selected from; "" where that is not known.
        index: (N,) int64, ascending. state: (N,) int64, as in `Certificates`.
        radius: of smoothing, (N,) float32, the L2 radius within which the image is certified to be of its class; -1
            where it is misclassified or the classifier abstains. None of all other methods.
    """

    model: str
    network: Mapping[str, str]
    method: str
    version: int
    settings: str
    is_deterministic: bool
    norm: str
    epsilon: float
    images: str
    seed: int
    index: NDArray[np.int64]
    state: NDArray[np.int64]
    radius: NDArray[np.float32] | None = None
    origin: str = ""

    @property
    def certified(self) -> Bools:
        """(N,) bool."""
        proven: Bools = self.state == CERTIFIED
        return proven

    @property
    def place(self) -> dict[str, Any]:
        """What tells it from others of the suite: a newer one of the same is taken together with it.

        Of what is drawn, the settings and the seed are part of it.
        """
        drawn = () if self.is_deterministic else ("settings", "seed")
        names = ("network", "method", "norm", "epsilon", "images", *drawn)
        return {name: dict(self.network) if name == "network" else getattr(self, name) for name in names}

    def is_of(self, images: str, origin: str) -> bool:
        """Whether its indices count the same images as those with this digest, or selected from this whole."""
        return self.images == images or (self.origin != "" and self.origin == origin)

    def holds_in(self, threat: ThreatModel) -> bool:
        """Whether a point that is misclassified in this ball would contradict what it certifies."""
        return is_inside(threat, ThreatModel(self.norm, self.epsilon))

    def breaks(self, threat: ThreatModel) -> bool:
        """Whether its witnesses lie in this ball."""
        return is_inside(ThreatModel(self.norm, self.epsilon), threat)

    def with_earlier(self, earlier: "Certified") -> "Certified":
        """What either of two runs of the same place proves; of another version, or of draws, the newer one alone.

        Raises: ValueError where an image is certified by the one and broken by the other.
        """
        if earlier.version != self.version or not self.is_deterministic:
            return self
        if not np.array_equal(earlier.index, self.index):
            return self
        state = np.where(self.state == UNKNOWN, earlier.state, self.state)
        if both := self.index[(earlier.state != UNKNOWN) & (earlier.state != state)].tolist():
            raise ValueError(f"{self.model}: {self.method}: image {both[0]} is both certified and broken, by two runs")
        if np.array_equal(state, self.state):
            return self
        if np.array_equal(state, earlier.state):
            return replace(earlier, model=self.model, origin=self.origin or earlier.origin)
        settings = dict.fromkeys([*earlier.settings.split(" or "), self.settings])
        return replace(self, state=state, settings=" or ".join(settings), origin=self.origin or earlier.origin)

    def to_dict(self) -> dict[str, Any]:
        """As it is written to JSON.

        The rows are zlib over little-endian int32 indices, int8 states and, where there are some, float32 radii, in
        base64.
        """
        rows = self.index.astype("<i4").tobytes() + self.state.astype("<i1").tobytes()
        if self.radius is not None:
            rows += self.radius.astype("<f4").tobytes()
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ROWS}
        if not self.origin:
            del plain["origin"]
        packed = base64.b64encode(zlib.compress(rows, 9)).decode()
        return {**plain, "network": dict(self.network), "n": len(self.index), "rows": packed}


LARGER = ("L1", "L2", "Linf")
"""Norms of which a ball lies inside that of every later one with the same radius."""


def is_inside(ball: ThreatModel, other: ThreatModel) -> bool:
    """Whether a ball lies inside another one around the same image: as far as the radii alone tell."""
    if ball.norm != other.norm and not {ball.norm, other.norm} <= {*LARGER}:
        return False
    widens = ball.norm == other.norm or LARGER.index(ball.norm) < LARGER.index(other.norm)
    return widens and ball.epsilon <= other.epsilon


ROWS = ("index", "state", "radius")
"""What `Certified` has of each image."""


def certified_from(record: Mapping[str, Any]) -> Certified:
    """What `Certified.to_dict` wrote. Raises: ValueError, in one line, for anything else."""
    try:
        names = [field.name for field in fields(Certified) if field.name not in (*ROWS, "origin")]
        n = int(record["n"])
        rows = zlib.decompress(base64.b64decode(record["rows"], validate=True))
        if len(rows) not in (5 * n, 9 * n):
            raise ValueError("rows of another number")
        index = np.frombuffer(rows, "<i4", n).astype(np.int64)
        state = np.frombuffer(rows, "<i1", n, 4 * n).astype(np.int64)
        radius = np.frombuffer(rows, "<f4", n, 5 * n).astype(np.float32) if len(rows) > 5 * n else None
        plain = {name: record[name] for name in names}
        return Certified(**plain, index=index, state=state, radius=radius, origin=record.get("origin", ""))
    except (LookupError, TypeError, AttributeError, ValueError, zlib.error) as error:
        raise ValueError(
            f"expected what is certified of a model, got something else ({type(error).__name__})"
        ) from None

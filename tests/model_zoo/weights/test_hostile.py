"""Files made to do harm: each is refused in one line, none runs code, none takes the machine's memory or time."""

import io
import json
import os
import pickle
import resource
import stat
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from attacks.errors import InputError
from model_zoo.card import card, read_card
from model_zoo.registry import MODELS as SHIPPED_MODELS
from model_zoo.registry import models_of
from model_zoo.training.state import resume
from model_zoo.weights.checkpoint import LARGEST, load_state_dict

MOST_MEMORY = 1 << 30
"""Bytes that refusing a file may add to what the process has."""


@pytest.fixture(autouse=True)
def in_bounds() -> Iterator[None]:
    """A refusal takes little time and memory, whatever the file claims."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_MEMORY
    assert time.monotonic() - started < 60, "no time is asserted but that it ends"


def archive(*entries: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in entries:
            file.writestr(name, content)
    return buffer.getvalue()


def around(program: bytes) -> bytes:
    """A torch file whose pickle is this program."""
    return archive(("a/data.pkl", program), ("a/version", b"3\n"), ("a/byteorder", b"little"))


def saved(content: object, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def refusal(path: Path, data: bytes | None = None) -> str:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        load_state_dict(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


def laughs() -> bytes:
    """Tuples of tuples: a few bytes, and 8 ** 30 objects for whoever looks at each, as hashing a dict's key does."""
    program = b"\x80\x02}K\x01"
    for depth in range(30):
        slot = bytes([depth])
        program += b"q" + slot + b"0(" + (b"h" + slot) * 8 + b"t"
    return program + b"K\x01s."


def by_stack_global() -> bytes:
    return b"\x80\x04\x8c\x08builtins\x8c\x09bytearray\x93J\x00\x00\x00\x70\x85R."


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("a/data/0")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def repacked(content: object, compression: int) -> bytes:
    with zipfile.ZipFile(io.BytesIO(saved(content))) as file:
        return archive(*((name, file.read(name)) for name in file.namelist()), compression=compression)


def reshaped(size: bytes) -> bytes:
    """Three numbers that claim another size, in an archive that is whole."""
    with zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(3)}))) as file:
        entries = [(name, file.read(name)) for name in file.namelist()]
    return archive(*((name, data.replace(b"K\x03\x85", size + b"\x85")) for name, data in entries))


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "bytes of any size": (
        lambda: around(b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x70\x85R."),
        "asks for builtins.bytearray",
    ),
    "the same under its old name": (
        lambda: around(b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x70\x85R."),
        "asks for __builtin__.bytearray",
    ),
    "the same by another instruction": (lambda: around(by_stack_global()), "refused"),
    "tuples of tuples": (lambda: around(laughs()), "comes to more than"),
    "tuples of tuples before 1.6": (
        lambda: saved({}, zipped=False)[: saved({}, zipped=False).index(b"}")] + laughs()[2:],
        "comes to more than",
    ),
    "the same behind a mark that is taken back": (
        lambda: around(b"\x80\x02(0cbuiltins\nbytearray\nJ\x00\x00\x00\x70\x85R."),
        "asks for builtins.bytearray",
    ),
    "a mark and nothing else": (lambda: b"\x80\x02(.", "expected a torch checkpoint"),
    "a zip bomb": (lambda: repacked({"a": torch.zeros(1 << 22)}, zipfile.ZIP_DEFLATED), "a compressed entry of"),
    "a way out of the archive": (lambda: archive(("a/data.pkl", b"."), ("a/../../x", b"")), "outside of itself"),
    "an absolute path": (lambda: archive(("/etc/data.pkl", b".")), "outside of itself"),
    "a symbolic link": (lambda: archive(("a/data.pkl", b"."), (link(), b"/etc/passwd")), "a symbolic link"),
    "a shape that its storage has not": (lambda: reshaped(b"K\xff"), "a truncated or damaged file"),
    "a shape of 2 ** 62 elements": (lambda: reshaped(b"\x8a\x08" + (2**62).to_bytes(8, "little")), "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_torch_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    make, words = HOSTILE[name]
    assert words in refusal(tmp_path / "m.pt", make())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    entries = [("a/data.pkl", pickle.dumps({}, protocol=2)), ("a/data.pkl", b"cos\nsystem\n(S'true'\ntR.")]
    assert "two entries of one name" in refusal(tmp_path / "m.pt", archive(*entries))


def test_a_storage_before_1_6_that_claims_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    data = saved({"a": torch.zeros(3)}, zipped=False)
    assert data.count(b"K\x03") > 1
    refusal(tmp_path / "m.pt", data.replace(b"K\x03", b"\x8a\x05\x00\x00\x00\x00\x20"))  # 2 ** 37


def header(record: object, claimed: int | None = None) -> bytes:
    text = json.dumps(record).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text


@pytest.mark.parametrize(
    "data",
    [
        header({}, claimed=2**63),
        header({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}) + bytes(4),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**40]}}) + bytes(4),
        header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}) + bytes(4),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}) + bytes(4),
        header([[[]]]),
        struct.pack("<Q", 200_000) + b"[" * 200_000,
    ],
)
def test_a_safetensors_file_that_lies_about_itself_is_refused(tmp_path: Path, data: bytes) -> None:
    assert "that are none" in refusal(tmp_path / "m.safetensors", data)


def test_a_shape_of_many_elements_over_few_bytes_is_no_memory_and_no_weights(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(saved({"a": torch.zeros(1).expand(1 << 20, 1 << 20)}))
    assert load_state_dict(tmp_path / "m.pt")["a"].untyped_storage().nbytes() == 4


def test_what_never_ends_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    assert "a device or a pipe" in refusal(tmp_path / "pipe.pt")
    assert "a device or a pipe" in refusal(Path("/dev/zero"))
    with (tmp_path / "huge.pt").open("wb") as file:
        file.truncate(LARGEST + 1)  # a file with a hole takes no space
    assert "more than any has" in refusal(tmp_path / "huge.pt")


def test_a_link_that_leads_nowhere_or_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    (tmp_path / "nowhere.pt").symlink_to(tmp_path / "nothing")
    assert "expected a readable checkpoint" in refusal(tmp_path / "loop.pt")
    assert "found none" in refusal(tmp_path / "nowhere.pt")


# Cards


def card_with(folder: Path, **fields: object) -> Path:
    """A card in a checkpoint folder that says something else than the shipped one does."""
    record = json.loads(card(SHIPPED_MODELS[0], {}))
    record["model"].update(fields)
    (folder / "digits").mkdir(exist_ok=True)
    path = folder / "digits" / "evil.json"
    path.write_text(json.dumps(record))
    return path


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"code": "f@0", "architecture": "evil.py:f", "checkpoint": ""}, "code or a file outside"),
        ({"checkpoint": "../../etc/passwd"}, "code or a file outside"),
        ({"checkpoint": "/etc/passwd"}, "code or a file outside"),
        ({"name": "natural\nworst case 100"}, "name that is no line of text"),
        ({"name": 3}, "name that is no line of text"),
        ({"suites": [["digits"]]}, "suites that is no line of text"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_card_that_asks_for_more_than_weights_is_refused(
    tmp_path: Path, fields: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path('it-ran').touch()\n")
    path = card_with(tmp_path, **fields)
    for read in (lambda: read_card(path), lambda: models_of("digits", tmp_path)):
        with pytest.raises(InputError, match="expected the card of a trained model") as caught:
            read()
        assert words in str(caught.value)
    assert not (tmp_path / "it-ran").exists()


# What a training left


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", saved([1]), saved({"settings": "{}"}), saved({"settings": "{}", "evil": 1}), around(laughs())],
)
def test_a_training_that_left_something_else_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.training.pt").write_bytes(data)
    with pytest.raises(InputError, match="is damaged"):
        resume(tmp_path / "m", {})

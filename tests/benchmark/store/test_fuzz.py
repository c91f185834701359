"""What nobody would think of: mutated checkpoints and chunks, and command lines of random words.

FUZZ_EXAMPLES=100000 makes the long version; the short one, which CI runs, tries a few dozen of each.
"""

import contextlib
import hashlib
import io
import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attacks.errors import InputError
from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.gate.baseline import KIND, read_baseline
from benchmark.store.chunk import COLUMNS, pack, unpack
from benchmark.store.packed import Packed, packed_case, read_packed, write_packed
from benchmark.store.packed_json import digest_of
from benchmark.store.selection import shown_case
from benchmark.store.shown import Selection, Shown, SuiteRecord, suite_record_from
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key
from model_zoo.model_spec import ModelSpec
from model_zoo.weights.checkpoint import load_state_dict, save_state_dict

Command = Callable[..., subprocess.CompletedProcess[str]]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)

Edits = list[tuple[str, int, bytes]]
EDITS: st.SearchStrategy[Edits] = st.lists(
    st.tuples(
        st.sampled_from(["overwrite", "insert", "delete", "cut", "repeat"]),
        st.integers(0, 1 << 16),
        st.binary(min_size=1, max_size=9),
    ),
    max_size=6,
)


def edited(content: bytes, edits: Edits) -> bytes:
    """The content after some edits, each at a place modulo its length."""
    for kind, place, piece in edits:
        at = place % (len(content) + 1)
        content = {
            "overwrite": content[:at] + piece + content[at + len(piece) :],
            "insert": content[:at] + piece + content[at:],
            "delete": content[:at] + content[at + len(piece) :],
            "cut": content[:at],
            "repeat": content[:at] + content[max(0, at - 40) :],
        }[kind]
    return content


def torch_file(*, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    weights = {"state_dict": {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.zeros(2)}, "epoch": 3}
    torch.save(weights, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def safetensors_file(folder: Path) -> bytes:
    save_state_dict({"a.weight": torch.arange(6.0).view(2, 3), "b": torch.zeros(2)}, folder / "m.safetensors", {})
    return (folder / "m.safetensors").read_bytes()


# Instructions of pickles, weighted towards what a checkpoint has
INSTRUCTIONS = (
    *(b"}", b"(", b")", b"]", b"t", b"s", b"u", b"e", b"a", b"0", b"2", b"R", b"b", b"Q", b"N", b"\x88"),
    *(b"K\x01", b"K\xff", b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\x7f" * 8, b"h\x00", b"h\x01", b"q\x00", b"q\x01"),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nFloatStorage\n"),
    *(b"ctorch\nSize\n", b"ccollections\nOrderedDict\n", b"cbuiltins\nbytearray\n", b"cposix\nsystem\n"),
    *(b"X\x07\x00\x00\x00storage", b"X\x01\x00\x00\x000", b"X\x03\x00\x00\x00cpu"),
)
PICKLE = st.lists(st.one_of(st.sampled_from(INSTRUCTIONS), st.binary(min_size=1, max_size=3)), max_size=30).map(
    lambda parts: b"\x80\x02" + b"".join(parts) + b"."
)


def assert_answered(path: Path, content: bytes) -> None:
    """A file loads, or is refused in one line."""
    path.write_bytes(content)
    try:
        for value in load_state_dict(path).values():
            assert isinstance(value, torch.Tensor)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017


@fuzzed
@given(zipped=st.booleans(), edits=EDITS)
def test_an_edited_torch_file_loads_or_is_refused_in_one_line(tmp_path: Path, zipped: bool, edits: Edits) -> None:
    assert_answered(tmp_path / "m.pt", edited(torch_file(zipped=zipped), edits))


@fuzzed
@given(program=PICKLE, zipped=st.booleans())
def test_a_pickle_of_random_instructions_is_answered_in_one_line(tmp_path: Path, program: bytes, zipped: bool) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in (("a/data.pkl", program), ("a/version", b"3\n"), ("a/data/0", bytes(24))):
            file.writestr(name, content)
    assert_answered(tmp_path / "m.pt", buffer.getvalue() if zipped else program)


@fuzzed
@given(edits=EDITS)
def test_an_edited_safetensors_file_loads_or_is_refused_in_one_line(tmp_path: Path, edits: Edits) -> None:
    assert_answered(tmp_path / "edited.safetensors", edited(safetensors_file(tmp_path), edits))


def verdicts(n: int) -> Verdicts:
    index = np.arange(n)
    robust = index % 3 == 0
    return Verdicts(index, index % 10, index % 10, robust, robust, np.ones(n), np.ones(n))


@fuzzed
@given(edits=EDITS)
def test_an_edited_chunk_is_read_whole_or_refused_in_one_line(edits: Edits) -> None:
    _, content = pack("0" * 32, (0, 40), verdicts(40), {"seconds": 1.0})
    try:
        columns, timing = unpack(edited(content, edits), "0" * 32, (0, 40))
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert list(columns) == list(COLUMNS)
        assert all(column is None or len(column) == 40 for column in columns.values())
        assert isinstance(timing, dict)


def packed_files(folder: Path) -> tuple[bytes, bytes]:
    """A summary, and the verdicts beside it."""
    model = ModelSpec(
        "m", suites=("s",), dataset="s", architecture="net", defense="", checkpoint="m.safetensors", sha256="0" * 64
    )
    case = EvalCase("s", "s", "d", 40, model, model, ATTACKS["fgsm"], ThreatModel("Linf", 0.1), 0)
    packed = packed_case(shown_case(case, [0]), verdicts(40), ())
    made_with = {"attack": "a", "seed": 0, "examples": None, "norm": "Linf", "epsilon": 0.1}
    notes = {"kind": KIND, **made_with, "attack_identity": {"algorithm": "a"}, "canaries": {}}
    write_packed(Packed("s", "any", {case_key(case): packed}, notes), folder / "seed")
    return (folder / "seed.json").read_bytes(), (folder / "seed.bin").read_bytes()


def read_forged(text: bytes, binary: bytes, folder: Path) -> None:
    """Read a summary and what lies beside it, both with checksums that fit: others' figures may be made up."""
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        document = json.loads(text)
        document.pop("sha256")
        document["packed"]["sha256"] = hashlib.sha256(binary).hexdigest()
        text = json.dumps({**document, "sha256": digest_of(document)}).encode()
    (folder / "p.json").write_bytes(text)
    (folder / "p.bin").write_bytes(binary)
    try:
        read_packed(folder / "p.json")
        read_baseline(folder / "p.json")
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017


@fuzzed
@given(edits=EDITS, edits_beside=EDITS)
def test_forged_packed_verdicts_are_read_or_refused_in_one_line(
    tmp_path: Path, edits: Edits, edits_beside: Edits
) -> None:
    text, binary = packed_files(tmp_path)
    read_forged(edited(text, edits), edited(binary, edits_beside), tmp_path)


@fuzzed
@given(edits=EDITS)
def test_an_edited_record_of_a_suite_is_read_or_refused_in_one_line(edits: Edits) -> None:
    model = ModelSpec(
        "m", suites=("s",), dataset="s", architecture="net", defense="", checkpoint="m.safetensors", sha256="0" * 64
    )
    case = EvalCase("s", "s", "d", 40, model, model, ATTACKS["fgsm"], ThreatModel("Linf", 0.1), 0)
    selection = Selection("d", "Linf", 0.1, 0)
    record = SuiteRecord(selection, {selection: Shown("any", (shown_case(case, [0]),))})
    text = json.dumps(record.to_dict()).encode()
    assert suite_record_from(json.loads(text)) == record
    try:
        suite_record_from(json.loads(edited(text, edits)))
    except (ValueError, RecursionError) as error:
        assert "\n" not in str(error) or isinstance(error, json.JSONDecodeError)  # noqa: PT017


VOCABULARY = str.split("""
list train table speed compare gate store verify rejudge missing gc models attacks defenses datasets suites
--models --suite --attacks --transfer --sources --examples --model --checkpoint --dataset --norm --epsilon
--data-dir --results-dir --checkpoint-dir --mirror-dir --device --precision --batch-size --workers --executor
--gpus-per-worker --seed --quiet --defense --recipe --set --name --against --against-dir --rounds --contests
--dry-run --unshown --help --norm --keep-images --baseline --update --tolerance --min-robust-acc --alpha --budget
--junit --sarif --screen --summary --canaries --attack b.json all,fgsm=5
natural madry all none digits mnist cifar10 pgd-20 autoattack fgsm trades Linf L2 0
1 -1 8/255 0.3 1/0 nan inf 1e999 beta=6 epochs=0 lr=nan pool=x = cpu cuda auto fp32 bf16 ray local 2 x.py:f :
, . .. / /dev/null results
""")
WORDS = st.one_of(
    st.sampled_from(VOCABULARY),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
)


BASELINE = Path(__file__).resolve().parents[3] / "results/digits/baseline.json"
STOPPED = (
    *("cli.run.run_cases", "cli.speed.measure", "cli.train.prepare_first_stage", "cli.train.run_training"),
    *("cli.gate_setup.GateProtocol", "data.datasets._download"),
)
"""Where sweeps, measurements, trainings, the gate's attacks and downloads begin."""


def stop(*_arguments: object, **_options: object) -> None:
    """In place of what takes long."""
    raise InputError("stopped: the words were understood")


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither sweeps, trainings, measurements nor downloads."""
    for place in STOPPED:
        monkeypatch.setattr(f"benchmark.{place}", stop)


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    "words",
    [
        ["--models", "natural"],
        ["train", "--defense", "natural"],
        ["gate", "update", "--baseline", "b.json", "--models", "natural"],
        ["gate", "--baseline", str(BASELINE)],
    ],
)
def test_what_takes_long_is_stopped(command: Command, tmp_path: Path, words: list[str]) -> None:
    assert "stopped: the words were understood" in command(tmp_path, *words).stderr


@pytest.mark.usefixtures("nothing_runs")
@fuzzed
@given(words=st.lists(WORDS, max_size=8))
def test_random_words_are_a_command_or_a_mistake_in_one_line(
    command: Command, tmp_path: Path, words: list[str]
) -> None:
    result = command(tmp_path, *words)
    assert result.returncode in (0, 1, 2), result
    if result.returncode == 2:
        assert result.stderr.splitlines()[-1].startswith("error: ")

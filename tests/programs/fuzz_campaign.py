"""A fuzzing campaign of hours, guided by coverage: python tests/programs/fuzz_campaign.py TARGET MINUTES FOLDER.

TARGET is checkpoint, chunk, packed or words. Needs atheris (`pip install atheris`). Inputs that reach new code are kept
in FOLDER/TARGET, and a later campaign goes on from them. FOLDER/TARGET.json says what was tried and found: an answer
other than a result or one line is a crash, counted by the place that it comes from, its first input kept beside as
TARGET-crash-N. A crash of the interpreter itself ends the campaign, with libFuzzer's report.
"""

import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import atheris

sys.path.append(str(Path(__file__).parents[1] / "benchmark/store"))  # of test_fuzz

with atheris.instrument_imports(include=["pickletools", "zipfile"]):  # before torch, which imports them
    import pickletools  # noqa: F401
    import zipfile

import pandas  # noqa: F401, for it is not to be instrumented
import torchvision  # noqa: F401

with atheris.instrument_imports(include=["benchmark", "model_zoo", "attacks", "click"]):
    from test_fuzz import (
        STOPPED,
        VOCABULARY,
        packed_files,
        read_forged,
        safetensors_file,
        stop,
        torch_file,
        verdicts,
    )

    from attacks.errors import InputError
    from benchmark.cli.app import main as command_line
    from benchmark.store.audit import case_faults
    from benchmark.store.chunk import pack, unpack
    from benchmark.store.images import unpack_images
    from benchmark.store.store import Store
    from model_zoo.weights.checkpoint import load_state_dict

KEY = "0" * 32
Target = Callable[[bytes], None]


def checkpoint(data: bytes) -> None:
    """A first byte says what the rest is: a torch file, a safetensors file, or the pickle inside a torch file."""
    kind, content = data[:1], data[1:]
    if kind == b"p":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for name, part in (("a/data.pkl", content), ("a/version", b"3\n"), ("a/data/0", bytes(24))):
                file.writestr(name, part)
        content = buffer.getvalue()
    path = Path("m.safetensors" if kind == b"s" else "m.pt")
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        load_state_dict(path)


def chunk(data: bytes) -> None:
    """The columns of a chunk's file, and the same bytes as a file of a store, and as kept images, names and all."""
    with contextlib.suppress(ValueError):
        unpack(data, KEY, (0, 40))
    folder, seal = Path("runs/cases") / KEY, hashlib.sha256(data).hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"000000-000040.{seal}.{suffix}" for suffix in ("parquet", "npz")]
    for path in files:
        path.write_bytes(data)
    case_faults(Store(Path("runs")), KEY)
    with contextlib.suppress(InputError):
        Store(Path("runs")).read(KEY, 40)
    with contextlib.suppress(ValueError):
        unpack_images(files[1])
    for path in files:
        path.unlink()


def packed(data: bytes) -> None:
    """A summary and the verdicts beside it, behind a zero byte."""
    text, _, binary = data.partition(b"\0")
    read_forged(text, binary, Path())


def words(data: bytes) -> None:
    """A command line: each byte is a word that the program knows, or begins one that it does not."""
    provider = atheris.FuzzedDataProvider(data)
    said: list[str] = []
    while provider.remaining_bytes() and len(said) < 12:
        place = provider.ConsumeIntInRange(0, 255)
        word = VOCABULARY[place] if place < len(VOCABULARY) else provider.ConsumeUnicodeNoSurrogates(8)
        said.append(word.replace("\0", ""))
    if any(word.startswith("/") or ".." in word or "=/" in word for word in said):
        return  # nothing outside of the folder is written to
    errors = io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        try:
            with patch.object(sys, "argv", ["run_benchmark.py", *said]):
                command_line()
        except SystemExit as leaving:
            code = leaving.code or 0
    assert code in (0, 1, 2), (said, code)
    assert code != 2 or errors.getvalue().splitlines()[-1].startswith("error: "), said


def seeds(target: str) -> list[bytes]:
    """What the campaign begins with, beside what earlier ones found."""
    if target == "checkpoint":
        files = [b"t" + torch_file(zipped=True), b"t" + torch_file(zipped=False), b"s" + safetensors_file(Path())]
        with zipfile.ZipFile(io.BytesIO(torch_file(zipped=True))) as file:
            return [*files, b"p" + file.read(next(name for name in file.namelist() if name.endswith("data.pkl")))]
    if target == "chunk":
        return [pack(KEY, (0, 40), verdicts(40), {"seconds": 1.0})[1]]
    if target == "packed":
        return [b"\0".join(packed_files(Path()))]
    return [bytes([place]) for place in range(len(VOCABULARY))]


def watched(run: Target, name: str, record: Path) -> Target:
    """The target, counted, and going on after a crash."""
    found: dict[str, int] = {}
    tried, started, said = 0, time.monotonic(), 0.0

    def report() -> None:
        minutes = (time.monotonic() - started) / 60
        record.write_text(
            json.dumps({"inputs": tried, "minutes": round(minutes, 1), "crashes": found}, indent=1) + "\n"
        )

    def once(data: bytes) -> None:
        nonlocal tried, said
        tried += 1
        try:
            run(data)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            if where not in found:
                record.with_name(f"{name}-crash-{len(found)}").write_bytes(data)
                os.write(2, f"{traceback.format_exc()}\n".encode())
            found[where] = found.get(where, 0) + 1
            said = 0.0
        if time.monotonic() - said > 10:
            said = time.monotonic()
            report()

    return once


def main() -> None:
    """Fuzz."""
    target, minutes, folder = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]).resolve()
    targets: dict[str, Target] = {"checkpoint": checkpoint, "chunk": chunk, "packed": packed, "words": words}
    (folder / target).mkdir(parents=True, exist_ok=True)
    stopped: list[Any] = [patch(f"benchmark.{place}", stop) for place in STOPPED]
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch), contextlib.ExitStack() as stack:
        for replaced in stopped:
            stack.enter_context(replaced)
        for number, seed in enumerate(seeds(target)):
            (folder / target / f"seed-{number:03d}").write_bytes(seed)
        limits = [f"-max_total_time={60 * minutes:.0f}", "-timeout=60", "-rss_limit_mb=4096", "-max_len=8192"]
        atheris.Setup(
            [sys.argv[0], str(folder / target), *limits, "-print_final_stats=1"],
            watched(targets[target], target, folder / f"{target}.json"),
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()

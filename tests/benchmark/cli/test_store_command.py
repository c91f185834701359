"""The store's own commands: damage of every kind is found and named, rubbish goes, verdicts stay."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.store.chunk import checksum
from benchmark.store.store import VERSION, Store
from model_zoo.files.locks import in_use

Command = Callable[..., subprocess.CompletedProcess[str]]
WORDS = ("--models", "natural,madry", "--attacks", "fgsm", "--examples", "40", "--transfer", "none", "--quiet")


@pytest.fixture(scope="module")
def finished(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small sweep: two cases of one chunk."""
    folder = tmp_path_factory.mktemp("finished")
    assert command(folder, *WORDS).returncode == 0
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def chunks(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def snapshot(folder: Path) -> dict[str, bytes]:
    """What a sweep wrote, but for the timing."""
    kept = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".parquet", ".lock")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept if path.name != "timing.csv"}


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    """The same chunk with other content and the checksum that belongs to it: no accident, but a liar or a defect."""
    pq.write_table(change(pq.read_table(path)), path)
    stem = path.name.split(".")[0]
    return path.rename(path.with_name(f"{stem}.{checksum(path.read_bytes())}.parquet"))


def test_a_sound_store_has_no_faults(command: Command, folder: Path) -> None:
    result = command(folder, "store", "verify", "--quiet")
    assert result.returncode == 0
    assert "2 cases, 2 chunks, 0 faults, 0 shown cases incomplete, 0 temporary files" in result.stdout


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_another_case(path: Path) -> None:
    other = next(chunk for chunk in chunks(path.parents[1]) if chunk.parent != path.parent)
    shutil.copy(other, path.parent / other.name)
    path.unlink()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def no_parquet(path: Path) -> None:
    content = b"these are no verdicts"
    path.write_bytes(content)
    path.rename(path.with_name(f"{path.name.split('.')[0]}.{checksum(content)}.parquet"))


def too_few_rows(path: Path) -> None:
    rewritten(path, lambda table: table.slice(0, 39))


def robust_though_misclassified(path: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        wrong = np.full(40, -1)
        robust = np.ones(40, dtype=bool)
        table = table.set_column(table.column_names.index("prediction"), "prediction", pa.array(wrong))
        return table.set_column(table.column_names.index("robust_any"), "robust_any", pa.array(robust))

    rewritten(path, change)


def images_twice(path: Path) -> None:
    rewritten(path, lambda table: pa.concat_tables([table.slice(0, 20)] * 2))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (flip, "damaged: its content is not what its name says"),
        (empty, "damaged: its content is not what its name says"),
        (of_another_case, "holds images 000000-000040 of case"),
        (no_parquet, "is unreadable"),
        pytest.param(a_pipe, "damaged", marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")),
        (a_folder, "damaged"),
        (too_few_rows, "has 39 rows, expected 40"),
        (robust_though_misclassified, "robust though they are misclassified"),
        (images_twice, "images out of order, or twice"),
    ],
)
def test_a_faulty_chunk_is_found_named_removed_and_computed_again(
    command: Command, folder: Path, finished: Path, damage: Callable[[Path], None], named: str
) -> None:
    damage(chunks(folder)[0])
    verified = command(folder, "store", "verify", "--quiet")
    assert verified.returncode == 1
    assert named in verified.stdout
    assert "1 faults" in verified.stdout

    collected = command(folder, "store", "gc", "--quiet")
    assert collected.returncode == 0
    assert "1 removed" in collected.stdout
    missing = command(folder, "store", "missing")
    assert "fgsm" in missing.stdout
    assert command(folder, *WORDS).returncode == 0
    assert command(folder, "store", "missing").stdout == "Nothing is missing.\n"
    assert command(folder, "store", "verify", "--quiet").returncode == 0
    assert snapshot(folder) == snapshot(finished)


def test_a_store_that_lacks_what_it_shows_is_not_sound(command: Command, folder: Path) -> None:
    for path in (folder / "results/mine/runs/cases").iterdir():
        shutil.rmtree(path)
    verified = command(folder, "store", "verify", "--quiet")
    assert verified.returncode == 1
    assert "lacks 1 of 1 chunks and its record" in verified.stdout
    assert "\nrun the sweeps again" in verified.stdout


def test_a_record_that_is_a_pipe_or_a_folder_is_replaced(command: Command, folder: Path, finished: Path) -> None:
    one, other = (path.parent / "case.json" for path in chunks(folder))
    a_pipe(one)
    a_folder(other)
    assert command(folder, "table").returncode == 0
    assert command(folder, "store", "verify", "--quiet").stdout.count("case.json: damaged") == 2
    assert "2 removed" in command(folder, "store", "gc", "--quiet").stdout
    assert command(folder, *WORDS).returncode == 0
    shutil.rmtree(folder / "results/mine/digits/pictures")  # which `table` alone draws
    assert snapshot(folder) == snapshot(finished)


def test_what_nobody_sealed_still_tells_that_a_newer_program_wrote_it(command: Command, folder: Path) -> None:
    path = folder / "results/mine/runs/store.json"
    path.write_text(path.read_text().replace(f'"version": {VERSION}', '"version": 99'))
    refused = command(folder, "table")
    assert (refused.returncode, "update this program" in refused.stderr) == (2, True)
    path.write_text("{")
    verified = command(folder, "store", "verify", "--quiet")
    assert (verified.returncode, "store.json: damaged" in verified.stdout) == (1, True)


def test_an_empty_folder_among_the_cases_is_rubbish(command: Command, folder: Path) -> None:
    (folder / "results/mine/runs/cases/notacase").mkdir()
    verified = command(folder, "store", "verify", "--quiet")
    assert "notacase: an empty folder" in verified.stdout
    assert "1 removed" in command(folder, "store", "gc", "--quiet").stdout
    assert command(folder, "store", "verify", "--quiet").returncode == 0


def test_a_lost_record_is_missing_and_made_again(command: Command, folder: Path, finished: Path) -> None:
    next(folder.rglob("case.json")).unlink()
    verified = command(folder, "store", "verify", "--quiet")
    assert verified.returncode == 1
    assert "case.json: missing" in verified.stdout
    assert "fgsm lacks its record" in verified.stdout
    assert "\nrun the sweeps again" in verified.stdout  # there is nothing that gc could remove
    assert "False" in command(folder, "store", "missing").stdout
    assert "0 removed" in command(folder, "store", "gc", "--quiet").stdout
    assert command(folder, *WORDS).returncode == 0
    assert snapshot(folder) == snapshot(finished)


def test_a_case_whose_record_is_another_cases_is_a_fault(command: Command, folder: Path) -> None:
    one, other = (path.parent / "case.json" for path in chunks(folder))
    shutil.copy(one, other)
    result = command(folder, "store", "verify", "--quiet")
    assert result.returncode == 1
    assert f"{other.relative_to(folder)}: the identity of another case" in result.stdout


def test_garbage_is_what_a_kill_left_and_nothing_else(command: Command, folder: Path) -> None:
    before = snapshot(folder)
    left = [
        chunks(folder)[0].parent / ".00ff.tmp",
        folder / "results/mine/digits/.11ff.tmp",
        folder / "results/mine/.22ff.tmp",
    ]
    for path in left:
        path.write_bytes(b"half of a")
    looked = command(folder, "store", "gc", "--dry-run", "--quiet")
    assert "3 to remove" in looked.stdout
    assert all(path.exists() for path in left)
    assert "3 removed" in command(folder, "store", "gc", "--quiet").stdout
    assert snapshot(folder) == before


def test_of_two_files_of_one_chunk_one_goes(command: Command, folder: Path) -> None:
    path = chunks(folder)[0]
    copy = rewritten(
        Path(shutil.copy(path, path.with_name("copy"))),
        lambda table: table.replace_schema_metadata({**table.schema.metadata, b"timing": b'{"seconds": 9.0}'}),
    )
    copy.rename(copy.with_name(copy.name.replace("copy", path.name.split(".")[0])))
    assert "a second file of the same images" in command(folder, "store", "verify", "--quiet").stdout
    assert "1 removed" in command(folder, "store", "gc", "--quiet").stdout
    assert len(chunks(folder)) == 2


def test_verdicts_that_no_table_shows_go_on_demand_only(command: Command, folder: Path) -> None:
    (folder / "results/mine/runs/suites/digits.json").unlink()
    (folder / "results/mine/verdicts/digits.json").unlink()
    assert command(folder, *WORDS[2:], "--models", "madry").returncode == 0
    assert "0 removed" in command(folder, "store", "gc", "--quiet").stdout
    assert "1 removed" in command(folder, "store", "gc", "--unshown", "--quiet").stdout
    assert len(chunks(folder)) == 1


def test_garbage_is_not_collected_under_a_running_sweep(command: Command, folder: Path) -> None:
    with in_use(folder / "results/mine/runs"):
        result = command(folder, "store", "gc", "--quiet")
    assert result.returncode == 2
    assert "expected a folder that no sweep is using" in result.stderr


def test_a_damaged_record_of_a_suite_is_named_and_its_verdicts_are_kept(
    command: Command, folder: Path, finished: Path
) -> None:
    record = folder / "results/mine/runs/suites/digits.json"
    record.write_text(record.read_text().replace("madry", "nadry"))
    for words in (WORDS, ("table",), ("store", "missing"), ("store", "gc", "--unshown")):
        result = command(folder, *words)
        assert result.returncode == 2
        assert "digits.json: expected which cases the tables show, got a damaged file; remove it" in result.stderr
    assert command(folder, "store", "verify", "--quiet").returncode == 1
    times = {path: path.stat().st_mtime_ns for path in chunks(folder)}
    record.unlink()
    assert command(folder, *WORDS).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in chunks(folder)} == times
    assert snapshot(folder) == snapshot(finished)


def test_a_store_of_a_newer_program_is_refused_and_left_alone(command: Command, folder: Path) -> None:
    Store(folder / "results/mine/runs")._write_json(folder / "results/mine/runs/store.json", {"version": VERSION + 1})
    for words in (WORDS, ("table",), ("store", "verify"), ("store", "gc")):
        result = command(folder, *words)
        assert result.returncode == 2
        assert f"expected a store of version {VERSION}, got {VERSION + 1}" in result.stderr
    assert Store(folder / "results/mine/runs").version == VERSION + 1


def test_a_store_of_version_1_is_refused_in_one_line_and_left_alone(command: Command, folder: Path) -> None:
    (folder / "results/mine/runs/store.json").unlink()  # it had none
    before = snapshot(folder)
    for words in (WORDS, ("table",), ("store", "verify"), ("store", "gc")):
        result = command(folder, *words)
        assert result.returncode == 2
        assert f"expected a store of version {VERSION}, got 1" in result.stderr
        assert "run the benchmark again into another --results-dir" in result.stderr
    assert snapshot(folder) == before


def test_a_folder_without_a_store_is_a_mistake(command: Command, tmp_path: Path) -> None:
    result = command(tmp_path, "store", "verify", "--results-dir", "none")
    assert result.returncode == 2
    assert result.stderr.startswith("error: expected verdicts in none/runs, found no such folder")

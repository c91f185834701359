"""Faults that a sweep survives: kills at random moments, a full disk, a folder of many, clocks that jump.

FAULT_KILLS=50 makes the random kills the long version; the short one, which CI runs, has a few.
"""

import importlib.util
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from forked import Forked

from benchmark.sweep.local_pool import can_fork

KILLS = int(os.environ.get("FAULT_KILLS", "2"))
WORDS = ("--models", "natural,madry", "--attacks", "pgd-20,pgd-40,cw-linf,mi-fgsm", "--examples", "300", "--quiet")
SMALL = ("--models", "natural,madry", "--attacks", "fgsm,mi-fgsm", "--examples", "40", "--workers", "1", "--quiet")
LARGE = ("--batch-size", "300")
Command = Callable[..., subprocess.CompletedProcess[str]]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
forks = pytest.mark.skipif(not can_fork(), reason="this system cannot fork")


def contents(folder: Path) -> dict[str, object]:
    """All that a sweep wrote but for timing; chunks by their columns."""
    written: dict[str, object] = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".parquet":
            assert name.split(".")[0] not in written, "a chunk was written twice"
            written[name.split(".")[0]] = pq.read_table(path).to_pydict()
        elif path.suffix not in (".tmp", ".lock") and path.name != "timing.csv":
            written[name] = path.read_bytes()
    return written


def chunks(folder: Path) -> dict[Path, tuple[int, int]]:
    """The chunk files, with what changes when one is written again."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*.parquet")}


@pytest.fixture(scope="module")
def undisturbed(command: Command, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the sweep of `WORDS` writes when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert command(folder, *WORDS, "--workers", "1").returncode == 0
    return contents(folder)


@pytest.fixture(scope="module")
def undisturbed_large(command: Command, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The same in tasks of two chunks."""
    folder = tmp_path_factory.mktemp("undisturbed_large")
    assert command(folder, *WORDS, *LARGE, "--workers", "1").returncode == 0
    return contents(folder)


@pytest.fixture(scope="module")
def small(command: Command, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The same for `SMALL`."""
    folder = tmp_path_factory.mktemp("small")
    assert command(folder, *SMALL).returncode == 0
    return contents(folder)


def kill_at_random(folder: Path, draw: random.Random, *words: str) -> bool:
    """Start the sweep, SIGKILL it, or all of its processes, at a random moment; False where it was done before."""
    before = len(chunks(folder))
    with Forked(folder, *WORDS, *words) as running:
        if draw.random() < 0.8:  # the others are killed while they start
            while len(chunks(folder)) == before and running.poll() is None:
                time.sleep(0.002)
        moment = time.monotonic() + draw.uniform(0, 1)
        while time.monotonic() < moment and running.poll() is None:
            time.sleep(0.002)
        if draw.random() < 0.5:
            running.kill()
        elif running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
        return running.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    "words",
    [
        ("--workers", "1"),
        pytest.param(("--workers", "2"), marks=forks),
        pytest.param(("--executor", "ray", "--workers", "2"), marks=needs_ray),
    ],
    ids=" ".join,
)
def test_a_sweep_killed_at_random_moments_ends_with_the_same_bytes(
    undisturbed: dict[str, object], tmp_path: Path, words: tuple[str, ...]
) -> None:
    end_in_spite_of_kills(undisturbed, tmp_path, words)


@forks
def test_tasks_of_several_chunks_that_are_killed_at_random_moments_end_with_the_same_bytes(
    undisturbed_large: dict[str, object], tmp_path: Path
) -> None:
    end_in_spite_of_kills(undisturbed_large, tmp_path, (*LARGE, "--workers", "2"))


def end_in_spite_of_kills(undisturbed: dict[str, object], tmp_path: Path, words: tuple[str, ...]) -> None:
    """Kill sweeps over and over; each is carried on to its end, and gives the bytes of an undisturbed one."""
    draw, kills, sweeps = random.Random(KILLS), 0, 0
    while kills < KILLS:
        folder = tmp_path / str(sweeps)
        folder.mkdir()
        sweeps, done = sweeps + 1, False
        while kills < KILLS and not done:
            before = chunks(folder)
            done = not kill_at_random(folder, draw, *words)
            kills += not done
            after = chunks(folder)
            assert before.items() <= after.items(), "a finished chunk was lost or computed again"
        code, error = Forked(folder, *WORDS, *words).end()
        assert code == 0, error
        assert before.items() <= chunks(folder).items()
        assert contents(folder) == undisturbed
    print(f"{kills} kills in {sweeps} sweeps, {words}")


def test_two_sweeps_on_one_folder_share_the_work_and_write_what_one_writes(
    command: Command, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    one = Forked(tmp_path, *WORDS, "--workers", "1")
    two = Forked(tmp_path, *WORDS, "--workers", "1", "--models", "madry,natural")
    ends = [process.end() for process in (one, two)]
    assert [code for code, _ in ends] == [0, 0], ends
    assert contents(tmp_path) == undisturbed
    assert command(tmp_path, "store", "verify", "--quiet").returncode == 0


def test_two_sweeps_of_different_batch_sizes_on_one_folder_write_each_chunk_once(
    command: Command, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    one = Forked(tmp_path, *WORDS, "--workers", "1")
    two = Forked(tmp_path, *WORDS, "--workers", "1", *LARGE)
    ends = [process.end() for process in (one, two)]
    assert [code for code, _ in ends] == [0, 0], ends
    assert contents(tmp_path).keys() == undisturbed.keys()
    assert command(tmp_path, "store", "verify", "--quiet").returncode == 0


def test_a_sweep_takes_over_from_one_that_was_stopped_and_dies_while_others_wait(
    undisturbed: dict[str, object], tmp_path: Path
) -> None:
    with Forked(tmp_path, *WORDS, "--workers", "1") as stopped:
        while not chunks(tmp_path) and stopped.poll() is None:
            time.sleep(0.01)
        os.kill(stopped.pid, signal.SIGSTOP)
        time.sleep(0.1)
        while not holds_a_claim(stopped.pid, tmp_path):  # it was stopped between two chunks
            os.kill(stopped.pid, signal.SIGCONT)
            time.sleep(0.02)
            os.kill(stopped.pid, signal.SIGSTOP)
            time.sleep(0.1)
            assert stopped.poll() is None
        waiting = Forked(tmp_path, *WORDS, "--workers", "1")
        assert any("waiting for" in line for line in waiting.stderr)
        stopped.kill()
        code, error = waiting.end()
        assert code == 0, error
    assert contents(tmp_path) == undisturbed


def holds_a_claim(process: int, folder: Path) -> bool:
    (locks,) = folder.rglob(".claims.lock")
    of_file = f":{locks.stat().st_ino}"
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(line[-4] == str(process) and line[-3].endswith(of_file) for line in lines)


@needs_ray
def test_workers_that_are_killed_under_ray_are_replaced_and_change_no_byte(
    undisturbed: dict[str, object], tmp_path: Path
) -> None:
    running = Forked(tmp_path, *WORDS, "--executor", "ray", "--workers", "2")
    killed = 0
    while running.poll() is None and killed < 2:
        if len(chunks(tmp_path)) > 2 * killed and (workers := ray_workers(running.pid)):
            os.kill(workers[-1], signal.SIGKILL)
            killed += 1
        time.sleep(0.02)
    code, error = running.end()
    assert (code, killed) == (0, 2), error
    assert contents(tmp_path) == undisturbed


def ray_workers(driver: int) -> list[int]:
    """The processes of a driver's actors, by the titles that Ray gives them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            is_actor = b"ray::Worker" in path.read_bytes()
            if is_actor and os.getsid(int(path.parent.name)) == os.getsid(driver):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return sorted(found)


def one_line(running: Forked) -> str:
    """What a sweep that had to stop says."""
    code, error = running.end()
    assert code == 2, error
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    return error


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=forks)])
def test_a_file_size_limit_stops_the_sweep_with_one_line_and_nothing_is_lost(
    command: Command, small: dict[str, object], tmp_path: Path, workers: str
) -> None:
    size = 1700  # the records of one case fit, its chunk does not
    few = ("--models", "natural", "--attacks", "fgsm", "--examples", "40", "--transfer", "none", "--quiet")
    error = one_line(Forked(tmp_path, *few, "--workers", workers, file_size=size))
    assert "expected a folder that can be written to, got: File too large" in error
    assert "what was computed is kept" in error
    assert not list(tmp_path.rglob("*.tmp"))
    assert command(tmp_path, *SMALL).returncode == 0
    assert contents(tmp_path) == small


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB; its test is skipped where mounting one is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_the_sweep_with_one_line_and_more_space_continues_it(
    command: Command, small: dict[str, object], disk: Path
) -> None:
    error = one_line(Forked(disk, *SMALL))
    assert "No space left on device" in error
    kept = chunks(disk)
    assert kept
    subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
    assert command(disk, *SMALL).returncode == 0
    assert kept.items() <= chunks(disk).items()
    assert contents(disk) == small


def test_a_read_only_folder_is_noticed_before_anything_is_computed_and_can_still_be_verified(
    command: Command, small: dict[str, object], disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
    assert command(disk, *SMALL).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for words in (SMALL, ("table",), ("store", "gc")):
        result = command(disk, *words)
        assert result.returncode == 2
        assert "Read-only file system" in result.stderr
        assert result.stderr.count("\n") == 1
    assert command(disk, "store", "verify", "--quiet").returncode == 0
    assert contents(disk) == small


def test_clocks_that_jump_change_nothing(
    command: Command, small: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: draw.uniform(0, 2**32))
    few = [word.replace("natural,madry", "natural") for word in SMALL]
    assert command(tmp_path, *few).returncode == 0
    for place, path in enumerate(sorted(tmp_path.rglob("*"))):
        moment = (0, 2**32)[place % 2]  # 1970 and 2106
        os.utime(path, (moment, moment))
    kept = chunks(tmp_path)
    assert command(tmp_path, *SMALL).returncode == 0
    assert kept.items() <= chunks(tmp_path).items()
    assert contents(tmp_path) == small

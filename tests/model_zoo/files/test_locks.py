"""Claims belong to processes: they keep others out, and are let go of however the process ends."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attacks.errors import InputError
from model_zoo.files.locks import CLAIMS, alone, claim, in_use

pytest.importorskip("fcntl", reason="this system has no file locks")
ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import pathlib, sys, time
from model_zoo.files.locks import alone, claim, in_use
with {what}:
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held(folder: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock; killed in the end."""
    program = HOLD.format(what=what.format(f"pathlib.Path({str(folder)!r})"))
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_what_another_process_claims_is_not_ours_until_that_process_is_killed(tmp_path: Path) -> None:
    with held(tmp_path, "claim({}, 'one', wait=False)") as process:
        with claim(tmp_path, "one", wait=False) as is_ours:
            assert not is_ours
        with claim(tmp_path, "two", wait=False) as is_ours:
            assert is_ours
        process.kill()
        with claim(tmp_path, "one", wait=True) as is_ours:
            assert is_ours


def test_pieces_that_are_claimed_together_are_ours_all_or_none(tmp_path: Path) -> None:
    with held(tmp_path, "claim({}, 'two', 'three', wait=False)") as process:
        with claim(tmp_path, "one", "two", wait=False) as is_ours:
            assert not is_ours
        with claim(tmp_path, "one", "four", wait=False) as is_ours:
            assert is_ours
        process.kill()
        with claim(tmp_path, "three", "one", "two", wait=True) as is_ours:
            assert is_ours


def test_two_processes_that_want_the_same_pieces_do_not_wait_for_each_other(tmp_path: Path) -> None:
    program = """
import pathlib, sys
from model_zoo.files.locks import claim
for _ in range(300):
    with claim(pathlib.Path(sys.argv[1]), *sys.argv[2:], wait=True) as is_ours:
        assert is_ours
"""
    orders = (("one", "two", "three"), ("three", "two", "one"))
    words = [[sys.executable, "-c", program, str(tmp_path), *order] for order in orders]
    processes = [subprocess.Popen(word, cwd=ROOT, stderr=subprocess.PIPE, text=True) for word in words]
    ends = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends


def test_a_folder_in_use_may_be_used_by_others_and_is_not_cleared_up(tmp_path: Path) -> None:
    with held(tmp_path, "in_use({})") as process:
        with in_use(tmp_path):
            pass
        with pytest.raises(InputError, match="that no sweep is using"), alone(tmp_path):
            pass
        process.kill()
        process.wait()
        with alone(tmp_path):
            pass


def test_what_is_claimed_is_kept_by_a_file_that_stays_empty(tmp_path: Path) -> None:
    with claim(tmp_path, "one", wait=False), in_use(tmp_path):
        pass
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0, 0]


def test_whoever_may_not_write_to_a_folder_goes_on_without_a_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with claim(tmp_path, "one", wait=False) as is_ours:
        assert is_ours


def test_whoever_may_write_to_a_folder_may_claim_there(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    before = os.umask(0o077)
    try:
        with claim(tmp_path, "one", wait=False):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / CLAIMS).stat().st_mode & 0o777 == 0o664

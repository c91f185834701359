"""The command line in a process of its own that starts at once: a copy of a server that has imported everything."""

import multiprocessing
import os
import resource
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from benchmark.cli.app import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["benchmark.cli.run", "benchmark.cli.train", "matplotlib.pyplot", "sklearn.datasets"])


class Forked:
    """`run_benchmark.py` with these words, run in a folder, the first process of a group; what is left of it is killed.

    Args:
        file_size: the largest file that it may write, in bytes.
    """

    def __init__(self, folder: Path, *words: str, file_size: int | None = None) -> None:
        said, says = FORKS.Pipe(duplex=False)
        self._process = FORKS.Process(target=_run, args=(folder, words, says, file_size))
        self._process.start()
        says.close()
        self.stderr = os.fdopen(os.dup(said.fileno()))
        said.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        self.wait()
        self.stderr.close()

    def poll(self) -> int | None:
        """The exit code, minus the number of the signal that killed it; None while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def end(self) -> tuple[int, str]:
        """The exit code, and what was said on stderr and not read before."""
        with self.stderr:
            said = self.stderr.read()
        return self.wait(), said


def _run(folder: Path, words: tuple[str, ...], says: Connection, file_size: int | None) -> None:
    os.setsid()
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(says.fileno(), 2)
    says.close()
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    sys.argv = ["run_benchmark.py", *words]
    main()

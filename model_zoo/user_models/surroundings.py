"""What a user's own code finds when it runs: its folder before ours, its modules under its names, its own settings."""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

OURS = ("attacks", "model_zoo", "benchmark", "run_benchmark")
"""Our top-level names, which are anybody's: a user's `attacks.py` wins where the user's code imports `attacks`."""

ROOT = Path(__file__).resolve().parents[2]


def _set_default_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


_SETTINGS: Sequence[tuple[Callable[[], Any], Callable[[Any], Any]]] = (
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, _set_default_device),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (torch.get_num_threads, torch.set_num_threads),
    (os.getcwd, os.chdir),
)
"""What code may set for the whole process: how it is read and how it is set."""


class Surroundings:
    """Where a user's code runs.

    Args:
        folders: those of the file, if it is one, and the working directory; searched first.
        program: what the code finds as the name of the program; it gets no arguments.
    """

    def __init__(self, folders: Iterable[Path], program: str) -> None:
        self._folders = list(dict.fromkeys(str(folder.resolve()) for folder in folders))
        self._program = program
        self._modules: dict[str, ModuleType] = {}  # the user's, under names of ours
        self._settings: Sequence[Any] = ()  # as the user's code left them

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The user's code is imported or called in the block; nothing that it sets stays."""
        arguments, ours = sys.argv, _settings()
        sys.argv = [self._program]
        _set(self._settings)
        try:
            with self.importing():
                yield
        finally:
            sys.argv, self._settings = arguments, _settings()
            _set(ours)

    @contextmanager
    def importing(self) -> Iterator[None]:
        """What is imported in the block is the user's, where the user has it, and else what everybody gets."""
        ours, path = _take(_all_of_ours()), list(sys.path)
        finder = _UsersFirst(self, ours)
        sys.modules.update(self._modules)
        sys.path[:] = [*self._folders, *(entry for entry in path if entry not in self._folders)]
        sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            sys.meta_path.remove(finder)
            self._folders += [entry for entry in sys.path if entry not in path and entry not in self._folders]
            sys.path[:] = path
            _NEIGHBOURS.allow(self._folders)
            self._modules = _take(name for name in _all_of_ours() if not is_ours(name))
            sys.modules.update(ours)

    def find(self, name: str) -> importlib.machinery.ModuleSpec | None:
        """The user's own module under a name of ours; None where there is none."""
        others = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
        spec = importlib.machinery.PathFinder.find_spec(name, [*self._folders, *others])
        if spec is None or _is_our_file(name, spec.origin):
            return None
        if spec.origin is None:  # a folder without __init__.py, which may hold anything but code
            folders = [Path(place) for place in spec.submodule_search_locations or ()]
            return spec if any(True for folder in folders for _ in folder.glob("*.py")) else None
        return spec

    def keep_around(self, model: nn.Module) -> None:
        """Have a model's forward pass import what its file imports, where that differs from what ours does."""
        if isinstance(model, torch.jit.ScriptModule) or not any(self.find(name) for name in OURS):
            return
        entered = []

        def enter(*_: Any) -> None:
            entered.append(self.importing())
            entered[-1].__enter__()

        def leave(*_: Any) -> None:
            entered.pop().__exit__(None, None, None)

        model.register_forward_pre_hook(enter)
        model.register_forward_hook(leave, always_call=True)


def is_ours(name: str) -> bool:
    """Whether the module of that name that is imported now is one of this project's."""
    top = name.partition(".")[0]
    return top in OURS and _is_our_file(top, getattr(sys.modules.get(top), "__file__", None))


class _UsersFirst(importlib.abc.MetaPathFinder):
    """Finds, under a name of ours, the user's module, and else ours as it was before."""

    def __init__(self, surroundings: Surroundings, ours: Mapping[str, ModuleType]) -> None:
        self._surroundings = surroundings
        self._ours = ours

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in OURS:
            return None
        spec = self._surroundings.find(name)
        if spec is None and name in self._ours:
            family = {known: module for known, module in self._ours.items() if known.partition(".")[0] == name}
            return importlib.machinery.ModuleSpec(name, _AsBefore(family))
        return spec


class _AsBefore(importlib.abc.Loader):
    """Puts modules that were imported before back to where they were."""

    def __init__(self, modules: Mapping[str, ModuleType]) -> None:
        self._modules = modules

    def exec_module(self, _module: ModuleType) -> None:
        sys.modules.update(self._modules)


class _Neighbours(importlib.abc.MetaPathFinder):
    """Finds, after everything else, what lies in users' folders: for imports inside functions that run later."""

    def __init__(self) -> None:
        self._folders: list[str] = []

    def allow(self, folders: Sequence[str]) -> None:
        self._folders += [folder for folder in folders if folder not in self._folders]
        if self not in sys.meta_path:
            sys.meta_path.append(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.PathFinder.find_spec(name, self._folders) if path is None else None


_NEIGHBOURS = _Neighbours()


def _is_our_file(name: str, file: str | None) -> bool:
    return file is not None and Path(file).resolve() in (ROOT / f"{name}.py", ROOT / name / "__init__.py")


def _all_of_ours() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in OURS]


def _take(names: Iterable[str]) -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(names)}


def _settings() -> list[Any]:
    return [read() for read, _ in _SETTINGS]


def _set(values: Sequence[Any]) -> None:
    """Set what is to be another than it is."""
    for (read, write), value in zip(_SETTINGS, values, strict=False):
        if read() != value:
            write(value)

"""A user's own model: the function that makes it, imported from a file or a module, and the code that it stands for."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from attacks.errors import InputError
from attacks.names import lookup
from model_zoo.checkpoint import sha256_of

_IMPORTED: dict[str, Sequence[str]] = {}
"""For each of the user's modules the files, outside of installed packages, that importing it brought in."""


def call_factory(factory: str) -> nn.Module:
    """The module that PATH.py:FUNCTION or module:FUNCTION makes. Raises: InputError where it makes none."""
    _, function = find_factory(factory)
    try:
        with torch.random.fork_rng(devices=[]):  # weights that the factory draws are the same at every call
            torch.manual_seed(0)
            model = function()
    except (Exception, SystemExit) as error:  # the user's own code may raise what it likes
        raise InputError(f"--model {factory}: the factory failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise InputError(
            f"--model {factory}: expected the factory to return a torch.nn.Module, got {type(model).__name__}"
        )
    return model


def code_of(module: ModuleType, function: Callable[[], Any]) -> str:
    """sha256 of a factory's code: its file, the one that defines it, and those that importing it brought in."""
    defined = inspect.getmodule(function)
    files = {str(m.__file__) for m in (module, defined) if m is not None and getattr(m, "__file__", None)}
    files.update(_IMPORTED.get(module.__name__, ()))
    digests = sorted(sha256_of(Path(file)) for file in files if Path(file).is_file())
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _own_files(names: set[str]) -> Sequence[str]:
    files = [getattr(sys.modules[name], "__file__", None) for name in names]
    return [file for file in files if file and "site-packages" not in file]


def find_factory(factory: str) -> tuple[ModuleType, Callable[[], Any]]:
    """The module of a factory, imported, and the function. Raises: InputError where either cannot be had."""
    place, _, function = factory.rpartition(":")
    if not place or not function:
        raise InputError(f"--model must be PATH.py:FACTORY or module:FACTORY, got {factory!r}")
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    found = getattr(module, function, None)
    if not callable(found):
        callables = {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("_")}
        found = lookup(function, callables, f"factory in {place}")
    return module, found


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"--model: expected a Python file at {path}, found none")
    name = f"user_model_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    before = set(sys.modules)
    try:
        module_spec.loader.exec_module(module)
        _IMPORTED[name] = _own_files(set(sys.modules) - before)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"--model: {path} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _import_module(name: str) -> ModuleType:
    before = set(sys.modules)
    try:
        module = importlib.import_module(name)
    except Exception as error:  # the user's own code may raise what it likes
        raise InputError(f"--model: module {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    _IMPORTED.setdefault(name, _own_files(set(sys.modules) - before))
    return module

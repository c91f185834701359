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

from attacks.errors import InputError, one_line
from attacks.names import lookup
from model_zoo.files.atomic import sha256_of
from model_zoo.user_models.surroundings import Surroundings, is_ours

_IMPORTED: dict[str, Sequence[str]] = {}
"""For each of the user's modules the files, outside of installed packages, that importing it brought in."""

_SURROUNDINGS: dict[str, Surroundings] = {}
"""For each of the user's modules where its code runs."""


def call_factory(factory: str) -> nn.Module:
    """The module that PATH.py:FUNCTION or module:FUNCTION makes. Raises: InputError where it makes none."""
    module, function = find_factory(factory)
    surroundings = _SURROUNDINGS[module.__name__]
    try:
        with torch.random.fork_rng(devices=[]), surroundings.entered():
            torch.manual_seed(0)  # weights that the factory draws are the same at every call
            model = function()
    except (Exception, SystemExit) as error:  # the user's own code may raise what it likes
        raise InputError(f"--model {factory}: the factory failed: {_reason(error)}") from error
    if not isinstance(model, nn.Module):
        raise InputError(
            f"--model {factory}: expected the factory to return a torch.nn.Module, got {type(model).__name__}"
        )
    surroundings.keep_around(model)
    return model


def code_of(module: ModuleType, function: Callable[..., Any]) -> str:
    """sha256 of a factory's code: its file, the one that defines it, and those that importing it brought in."""
    with _SURROUNDINGS[module.__name__].importing():
        defined = inspect.getmodule(function)
    files = {str(m.__file__) for m in (module, defined) if m is not None and getattr(m, "__file__", None)}
    files.update(_IMPORTED.get(module.__name__, ()))
    digests = sorted(sha256_of(Path(file)) for file in files if Path(file).is_file())
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def call_surrogate(factory: str, model: nn.Module) -> nn.Module:
    """What PATH.py:FUNCTION or module:FUNCTION makes of a model. Raises: InputError where it makes no module of it."""
    module, function = find_factory(factory, option="--adaptive")
    surroundings = _SURROUNDINGS[module.__name__]
    try:
        with torch.random.fork_rng(devices=[]), surroundings.entered():
            torch.manual_seed(0)
            surrogate = function(model)
    except (Exception, SystemExit) as error:  # the user's own code may raise what it likes
        raise InputError(f"--adaptive {factory}: the function failed: {_reason(error)}") from error
    if not isinstance(surrogate, nn.Module):
        raise InputError(
            f"--adaptive {factory}: expected the function to return a torch.nn.Module, got {type(surrogate).__name__}"
        )
    if surrogate is not model:
        surroundings.keep_around(surrogate)
    return surrogate


def find_factory(factory: str, *, option: str = "--model") -> tuple[ModuleType, Callable[..., Any]]:
    """The module of a factory, imported, and the function.

    Args:
        option: by which the user named it.

    Raises: InputError where either cannot be had.
    """
    place, _, function = factory.rpartition(":")
    if not place or not function:
        raise InputError(f"{option} must be PATH.py:FUNCTION or module:FUNCTION, got {factory!r}")
    module = _import_file(Path(place), option) if place.endswith(".py") else _import_module(place, option)
    found = getattr(module, function, None)
    if not callable(found):
        callables = {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("_")}
        found = lookup(function, callables, f"function in {place}")
    return module, found


def _import_file(path: Path, option: str) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{option}: expected a Python file at {path}, found none")
    name = f"user_model_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    loader = module_spec.loader

    def run() -> ModuleType:
        sys.modules[name] = module
        loader.exec_module(module)
        return module

    try:
        return _imported(name, Surroundings((path.parent, Path()), str(path)), run)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(f"{option}: {path} cannot be imported: {_reason(error)}") from error


def _import_module(name: str, option: str) -> ModuleType:
    surroundings = _SURROUNDINGS.get(name) or Surroundings((Path(),), name)
    try:
        return _imported(name, surroundings, lambda: importlib.import_module(name))
    except (Exception, SystemExit) as error:  # the user's own code may raise what it likes
        raise InputError(f"{option}: module {name!r} cannot be imported: {_reason(error)}") from error


def _imported(name: str, surroundings: Surroundings, run: Callable[[], ModuleType]) -> ModuleType:
    """A user's module, imported by `run` in its surroundings; what it brings in is kept in mind."""
    with torch.random.fork_rng(devices=[]), surroundings.entered():
        before = set(sys.modules)
        module = run()
        brought = [key for key in set(sys.modules) - before if not is_ours(key)]
        files = [getattr(sys.modules[key], "__file__", None) for key in brought]
    for key in (name, module.__name__):  # os.path, for one, has another name of its own
        _IMPORTED.setdefault(key, [file for file in files if file and "site-packages" not in file])
        _SURROUNDINGS[key] = surroundings
    return module


def _reason(error: BaseException) -> str:
    """What the user's code raised, in words that follow a colon."""
    if isinstance(error, SystemExit):
        return f"it ended the program (SystemExit: {error}); keep what reads arguments below if __name__ == '__main__':"
    return one_line(error)

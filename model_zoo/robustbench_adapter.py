"""Any RobustBench model by its id, through the optional package `robustbench`, which downloads its weights."""

import importlib
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from attacks.errors import InputError

PREFIX = "robustbench/"
"""Before a RobustBench id: robustbench/Carmon2019Unlabeled."""

PAGE = "https://github.com/RobustBench/robustbench"


def factory_name(model_id: str, dataset: str, norm: str) -> str:
    """What stands for the factory of such a model in its spec."""
    return f"{PREFIX}{dataset}/{norm}/{model_id}"


def build_robustbench(factory: str, folder: Path) -> nn.Module:
    """The model with its weights, which are kept below a folder.

    Raises: InputError where the package is not installed, does not know the id, or cannot get the weights.
    """
    dataset, norm, model_id = factory.removeprefix(PREFIX).split("/")
    package = _package()
    try:
        model = package.load_model(model_name=model_id, dataset=dataset, threat_model=norm, model_dir=str(folder))
    except (KeyError, AssertionError):
        raise InputError(
            f"{PREFIX}{model_id}: RobustBench has no such model of {dataset} under {norm}; its ids stand at {PAGE}"
        ) from None
    except Exception as error:  # a download may fail in any of its libraries' ways
        raise InputError(f"{PREFIX}{model_id}: cannot be had: {type(error).__name__}: {error}; see {PAGE}") from error
    assert isinstance(model, nn.Module)
    return model


def package_version() -> str:
    """Of the package, which the code of its networks comes with. Raises: InputError where it is not installed."""
    _package()
    return metadata.version("robustbench")


def _package() -> Any:
    try:
        return importlib.import_module("robustbench.utils")
    except ImportError:
        raise InputError(
            f"a name that begins with {PREFIX} needs the package robustbench; install it from {PAGE} "
            f"(pip install git+{PAGE}), or get the checkpoint and name it by --model and --checkpoint"
        ) from None

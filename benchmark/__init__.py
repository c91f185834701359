"""The harness: data, suites, verdicts, sweeps, reports, the gate, the command line. `evaluate` is one call for it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.api import Report, evaluate
    from benchmark.diagnosis_api import diagnose_model
    from benchmark.kept import kept_images

__all__ = ["Report", "diagnose_model", "evaluate", "kept_images"]
_PLACES = {"Report": "api", "diagnose_model": "diagnosis_api", "evaluate": "api", "kept_images": "kept"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'benchmark' has no attribute {name!r}")
    module = import_module(f"benchmark.{_PLACES[name]}")  # loads torch, which help and mistakes do without
    return getattr(module, name)

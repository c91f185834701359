"""The harness: data, suites, verdicts, sweeps, reports, the gate, the command line. `evaluate` is one call for it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.api import Report, evaluate
    from benchmark.kept import kept_images

__all__ = ["Report", "evaluate", "kept_images"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'benchmark' has no attribute {name!r}")
    from benchmark import api, kept  # load torch, which help and mistakes on the command line do without

    return getattr(kept if name == "kept_images" else api, name)

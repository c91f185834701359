"""The adversarial images that a run kept, read by one call."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attacks.errors import InputError
from benchmark.store.images import image_files, unpack_images
from benchmark.store.store import Store


def kept_images(
    results_dir: str | Path, model: str, attack: str, *, suite: str = "digits", source: str = ""
) -> dict[str, NDArray[np.int64] | NDArray[np.float32]]:
    """The images that `--keep-images` kept of one case that a suite's tables show.

    Args:
        results_dir: of the run.
        model, attack, source: as in `scores.csv`; `source` is the model that it was crafted on, "" for white-box.

    Returns: `index` (N,) int64, the place in the dataset; `y` (N,) int64; `x`, `x_adv` (N, C, H, W) float32 in [0, 1].
        `x_adv` is the first point that broke the image, else the last that was judged; `x` where `x` is misclassified.

    Raises: InputError where the tables show no such case, or nothing is kept of it; ValueError for a damaged file.
    """
    store = Store(Path(results_dir) / "runs")
    cells = {(case.model, case.attack, case.source_model): case.key for case in store.shown(suite).cases}
    key = cells.get((model, attack, source))
    if key is None:
        known = ", ".join(sorted({f"{name} under {what}" for name, what, _ in cells})) or "nothing"
        raise InputError(f"{store.root}: expected {attack} on {model} in the tables of {suite}, found {known}")
    parts = [unpack_images(path) for _, path in image_files(store.root / "cases" / key)]
    if not parts:
        raise InputError(
            f"expected kept images of {attack} on {model} in {store.root}, found none; run with --keep-images"
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in ("index", "y", "x", "x_adv")}

"""Published figures, measured again, where the authors' checkpoint and images lie beside this repository."""

import gzip
import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

SHARED = Path(__file__).resolve().parents[4] / "shared"
CHECKPOINT, MNIST = SHARED / "models/model_mnist_smallcnn.pt", SHARED / "data/mnist"
IMAGES = 200
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.skipif(
    not (CHECKPOINT.exists() and MNIST.exists()), reason="no TRADES checkpoint or MNIST beside the clone"
)
def test_the_authors_trades_mnist_model_has_its_published_accuracies(command: Command, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for kind in ("images-idx3", "labels-idx1"):
        (raw / f"t10k-{kind}-ubyte").write_bytes(gzip.decompress((MNIST / f"t10k-{kind}-ubyte.gz").read_bytes()))

    words = (
        "--suite",
        "trades-mnist",
        "--models",
        "trades-mnist-zhang2019",
        "--attacks",
        "pgd-40",
        "--examples",
        IMAGES,
        "--quiet",
    )
    folders = ("--data-dir", tmp_path, "--checkpoint-dir", CHECKPOINT.parent)
    result = command(tmp_path, *words, *folders)
    assert result.returncode == 0, result.stderr

    papers = (
        pd.read_csv(tmp_path / "results/mine/trades-mnist/papers.csv").dropna(subset="measured").set_index("attack")
    )
    for attack, published in {"clean": 99.48, "pgd-40": 96.07}.items():
        assert papers["published"][attack] == published
        share = published / 100
        margin = 300 * math.sqrt(share * (1 - share) / IMAGES) + 100 / IMAGES  # three binomial deviations, one image
        assert abs(papers["measured"][attack] - published) <= margin
    assert papers["measured"]["clean"] >= 97

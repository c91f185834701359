"""Checkpoints that a paper's authors released: where each is, under which file name, and for which network.

A sha256 stands here only where the file was at hand. A file whose name others use as well is looked for in a folder of
the model's own; one that its authors' page gives no name, under the model's name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

Weights = Mapping[str, Tensor]


def _behind_normalisation(weights: Weights) -> dict[str, Tensor]:
    """The network of a model that begins with `Normalize`; half precision, which mixed training saves, is widened."""
    return {f"1.{name}": value.float() if value.is_floating_point() else value for name, value in weights.items()}


CONVERTS: Mapping[str, Callable[[Weights], dict[str, Tensor]]] = {"behind-normalisation": _behind_normalisation}
"""From the authors' names of the weights to ours. `module.` in front and `sub_block1` are dealt with in any file."""

TRADES = {"paper": "arXiv:1901.08573", "url": "https://github.com/yaodongyu/TRADES", "defense": "trades"}
FAT = {"paper": "arXiv:2002.11242", "url": "https://github.com/zjfheart/Friendly-Adversarial-Training"}
GAIRAT = {
    "paper": "arXiv:2010.01736",
    "url": "https://github.com/zjfheart/Geometry-aware-Instance-reweighted-Adversarial-Training",
}
FAST = {"paper": "arXiv:2001.03994", "url": "https://github.com/locuslab/fast_adversarial", "defense": "fast"}

PACKAGES = ("pyautoattack",)
"""Installed packages that hold checkpoints; such a file is named by its path from the package on."""


def _cifar10(name: str, checkpoint: str, architecture: str, *suites: str, **fields: str) -> dict[str, Any]:
    own = {"name": name, "suites": ("cifar10", *suites), "dataset": "cifar10", "sha256": ""}
    return {**own, "architecture": architecture, "checkpoint": checkpoint, **fields}


def _fat(name: str, file: str, defense: str, *suites: str) -> dict[str, Any]:
    return _cifar10(name, f"{file}.pth.tar", "wrn-34-10", *suites, defense=defense, **FAT)


AUTHORS: Sequence[Mapping[str, Any]] = (
    {
        **_cifar10("natural-croce2020", "pyautoattack/examples/model_test.pt", "resnet-18", "trades-table5"),
        "defense": "natural",
        "sha256": "399f52da9f914c323fa5a6096d60f460a3449a59b64a6405200c1e629f8425a7",
        "size": 44_754_497,
        "paper": "arXiv:2003.01690",
        "url": "https://github.com/fra31/auto-attack",
    },
    {
        "name": "trades-mnist-zhang2019",
        "suites": ("mnist", "trades-mnist"),
        "dataset": "mnist",
        "architecture": "small-cnn",
        "checkpoint": "model_mnist_smallcnn.pt",
        "sha256": "5b99888064f692047d5592b38df2dde126aa1b991a26c6aad683ce709634bea0",
        "size": 1_251_636,
        **TRADES,
    },
    {
        "name": "fast-mnist-wong2020",
        "suites": ("mnist",),
        "dataset": "mnist",
        "architecture": "strided-cnn",
        "checkpoint": "fast-mnist-wong2020/fgsm.pth",
        "sha256": "",
        **FAST,
    },
    _cifar10(
        *("trades-cifar10-zhang2019", "model_cifar_wrn.pt", "wrn-34-10"),
        *("trades-table5", "fat-table2", "rst-table1"),
        **TRADES,
    ),
    # What its authors call WRN-32-10 is WRN-34-10, counted differently.
    _fat("fat-zhang2020", "fat_wrn32-10_eps0.031", "fat", "fat-table1"),
    _fat("fat-16-zhang2020", "fat_wrn32-10_eps0.062", "fat", "fat-table1"),
    _fat("fat-trades-b1-zhang2020", "fat_for_trades_wrn34-10_eps0.031_beta1.0", "fat-trades", "fat-table2"),
    _fat("fat-trades-b6-zhang2020", "fat_for_trades_wrn34-10_eps0.031_beta6.0", "fat-trades", "fat-table2"),
    _fat("fat-trades-b6-16-zhang2020", "fat_for_trades_wrn34-10_eps0.062_beta6.0", "fat-trades", "fat-table2"),
    _fat("fat-mart-zhang2020", "fat_for_mart_wrn34-10_eps0.031", "fat-mart"),
    _fat("fat-mart-16-zhang2020", "fat_for_mart_wrn34-10_eps0.062", "fat-mart"),
    _cifar10(
        *("gairat-zhang2021", "gairat-zhang2021/bestpoint.pth.tar", "wrn-34-10", "gairat-table1"),
        defense="gairat",
        **GAIRAT,
    ),
    _cifar10(
        *("gair-rst-zhang2021", "gair-rst-zhang2021/checkpoint-epoch200.pt", "wrn-28-10"), defense="gair-rst", **GAIRAT
    ),
    # Their pages link to these without a file name.
    _cifar10(
        *("mart-wang2020", "mart-wang2020.pt", "wrn-28-10"),
        defense="mart",
        paper="Wang et al., ICLR 2020",
        url="https://github.com/YisenWang/MART",
    ),
    _cifar10(
        *("rst-carmon2019", "rst-carmon2019.pt", "wrn-28-10", "rst-table1"),
        defense="rst",
        paper="arXiv:1905.13736",
        url="https://github.com/yaircarmon/semisup-adv",
    ),
    _cifar10(
        *("fast-cifar10-wong2020", "fast-cifar10-wong2020/model.pth", "preact-resnet-18+cifar10-norm"),
        convert="behind-normalisation",
        **FAST,
    ),
)

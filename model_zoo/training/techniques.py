"""Classical techniques, fitted by scikit-learn, kept as arrays: linear models, a tree, nearest neighbours."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

from attacks.errors import InputError
from model_zoo.architectures.registry import TREE_NODES as NODES

Arrays = Mapping[str, Tensor]
"""A state dict."""


@dataclass(frozen=True)
class Technique:
    """One classical technique.

    Args:
        part: of the architecture's name, behind the dataset's; "{n}" stands for the number of images.
        fit: images (N, pixels) in [0, 1], labels (N,), how many classes, seed; to the architecture's state dict.
        paper: where it comes from.
    """

    part: str
    fit: Callable[[NDArray[np.float32], NDArray[np.int64], int, int], Arrays]
    paper: str

    def architecture(self, dataset: str, images: int) -> str:
        """The name of the architecture that holds what is fitted to so many images of a dataset."""
        return f"{dataset}-{self.part.format(n=images)}"


def _logistic_regression(x: NDArray[np.float32], y: NDArray[np.int64], classes: int, seed: int) -> Arrays:
    return _linear(LogisticRegression(C=0.1, max_iter=1000, random_state=seed).fit(x, y), classes)


def _support_vectors(x: NDArray[np.float32], y: NDArray[np.int64], classes: int, seed: int) -> Arrays:
    machine = SGDClassifier(loss="hinge", alpha=1e-4, max_iter=20, tol=None, average=True, random_state=seed)
    return _linear(machine.fit(x, y), classes)


def _linear(fitted: LogisticRegression | SGDClassifier, classes: int) -> Arrays:
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1 and classes == 2:  # scikit-learn keeps one row of two classes
        weight, bias = np.concatenate([-weight, weight]), np.concatenate([-bias, bias])
    return {"linear.weight": torch.from_numpy(weight).float(), "linear.bias": torch.from_numpy(bias).float()}


def _tree(x: NDArray[np.float32], y: NDArray[np.int64], classes: int, seed: int) -> Arrays:
    tree = DecisionTreeClassifier(max_leaf_nodes=NODES // 2, random_state=seed).fit(x, y).tree_
    count = tree.node_count

    def padded(values: NDArray[np.float64] | NDArray[np.int64], fill: float, kind: torch.dtype) -> Tensor:
        whole = torch.full((NODES, *values.shape[1:]), fill, dtype=kind)
        whole[:count] = torch.from_numpy(np.array(values)).to(kind)
        return whole

    counts = tree.value[:, 0]
    return {
        "pixel": padded(np.where(tree.children_left < 0, -1, tree.feature), -1, torch.int64),
        "threshold": padded(tree.threshold, 0, torch.float64),
        "left": padded(tree.children_left, -1, torch.int64),
        "right": padded(tree.children_right, -1, torch.int64),
        "share": padded(counts / counts.sum(1, keepdims=True), 1 / classes, torch.float32),
    }


def _neighbours(x: NDArray[np.float32], y: NDArray[np.int64], _classes: int, _seed: int) -> Arrays:
    return {"images": torch.from_numpy(np.rint(x * 255).astype(np.uint8)), "labels": torch.from_numpy(y)}


TECHNIQUES: Mapping[str, Technique] = {
    "logistic-regression": Technique("logistic", _logistic_regression, "Cox 1958"),
    "linear-svm": Technique("svm", _support_vectors, "Cortes and Vapnik 1995"),
    "decision-tree": Technique("tree", _tree, "Breiman et al. 1984"),
    "nearest-neighbours": Technique("knn-{n}", _neighbours, "Cover and Hart 1967"),
}
"""In display order."""


def fit_technique(name: str, x: Tensor, y: Tensor, *, classes: int, seed: int) -> Arrays:
    """The state dict of a technique's architecture, fitted to images.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) labels, each class at least once.
        seed: of the order of the images, and of ties among a tree's pixels.

    Raises: InputError for images that lack a class.
    """
    lacking = sorted(set(range(classes)) - set(y.tolist()))
    if lacking:
        raise InputError(f"expected images of all {classes} classes, got none of {lacking}; use more images")
    arrays = x.flatten(1).float().numpy(), y.numpy()
    return TECHNIQUES[name].fit(*arrays, classes, seed)

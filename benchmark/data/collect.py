"""A caller's images and labels as tensors: given so, or by a DataLoader or a dataset."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from attacks.errors import InputError, one_line
from attacks.input_checks import check_data


def collect(x: Any, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) float32 and labels (N,) int64 on the CPU. Raises: InputError for anything else."""
    if y is None:
        if isinstance(x, Tensor):
            raise InputError("expected labels y beside images x, got none; without y, x is a DataLoader or a dataset")
        x, y = _collected(x)
    check_data(x, y)
    return x.detach().float().cpu().contiguous(), y.detach().long().cpu()


def _collected(data: Any) -> tuple[Any, Any]:
    """All images and labels of a DataLoader, or of a dataset of pairs."""
    is_loader = isinstance(data, DataLoader)
    if not is_loader and not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise InputError(f"expected a DataLoader, or a dataset with a length, got {type(data).__name__}")
    images, labels = [], []
    for pair in data if is_loader else (data[place] for place in range(len(data))):
        if not isinstance(pair, (tuple, list)) or len(pair) < 2:
            raise InputError(f"expected pairs (image, label), got {type(pair).__name__}")
        if not isinstance(pair[0], Tensor):
            raise InputError(
                f"expected images as tensors, got {type(pair[0]).__name__}; give the dataset a transform such as "
                "torchvision.transforms.ToTensor()"
            )
        images.append(pair[0])
        labels.append(pair[1])
    if not images:
        raise InputError("expected images, got an empty dataset")
    join = torch.cat if is_loader else torch.stack
    try:
        return join(images), join([torch.as_tensor(label) for label in labels])
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"expected images of one shape and a whole number as each label: {one_line(error)}") from None

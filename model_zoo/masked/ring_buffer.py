"""Buffers of a mask that keep the newest rows: these take the place of the oldest."""

import torch
from torch import Tensor


def oldest_rows(place: Tensor, count: int, capacity: int) -> Tensor:
    """(count,) rows of buffers (capacity, ...) that are written to next; `place`, a scalar, moves on behind them."""
    rows = (place + torch.arange(count, device=place.device)) % capacity
    place.copy_((place + count) % capacity)
    return rows

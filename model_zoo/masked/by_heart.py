"""What a part of a mask learns by heart: the newest rows take the place of the oldest in its buffers."""

import torch
from torch import Tensor


def oldest_rows(place: Tensor, count: int, capacity: int) -> Tensor:
    """(count,) rows of buffers (capacity, ...) that are written to next; `place`, a scalar, moves on behind them."""
    rows = (place + torch.arange(count, device=place.device)) % capacity
    place.copy_((place + count) % capacity)
    return rows

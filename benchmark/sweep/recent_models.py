"""Models by name, made when they are asked for; the ones asked for last are kept."""

from collections import OrderedDict
from collections.abc import Callable

from torch import nn


class RecentModels(OrderedDict[str, nn.Module]):
    """A model is made when it is asked for; those asked for last are kept.

    Args:
        make: a name to its model. most: how many are held at a time; a leaderboard's do not fit on a GPU.
    """

    def __init__(self, make: Callable[[str], nn.Module], most: int) -> None:
        super().__init__()
        self._make, self._most = make, most

    def __getitem__(self, name: str) -> nn.Module:
        if name not in self:
            while len(self) >= self._most:
                self.popitem(last=False)
            self[name] = self._make(name)
        self.move_to_end(name)
        return super().__getitem__(name)

"""The attack on decision trees: to the nearest leaf of another class, by the pixels on the way."""

from torch import Tensor

from model_zoo.architectures.techniques import DecisionTree

BEYOND = 1e-4
"""How far beyond a threshold a pixel is set; float32 tells so much apart anywhere in [0, 1]."""


def to_another_leaf(tree: DecisionTree, x: Tensor, y: Tensor) -> Tensor:
    """Images at a leaf of another class than their own, as few nodes away as there is one.

    From the leaf of an image the search climbs until a node's other side has a leaf of another class; of these it takes
    the nearest by depth, and sets the pixels compared on the way down to just beyond the thresholds. There is no other
    limit than [0, 1].

    Args:
        x: (N, C, H, W) in [0, 1], not modified; y: (N,) labels.

    Returns: (N, C, H, W) in [0, 1]; an image that no leaf of another class can be reached from stays.
    Source: Papernot et al., arXiv:1605.07277, Algorithm 2 (its subtree's nearest leaf).
    Deviations: a leaf that thresholds of [0, 1] cannot reach is passed over.
    """
    walker = _Walker(tree)
    moved = x.clone().flatten(1)
    for row, (leaf, label) in enumerate(zip(tree.leaf(x).tolist(), y.tolist(), strict=True)):
        for pixel, value in walker.changes(leaf, label, moved[row]):
            moved[row, pixel] = value
    return moved.view_as(x)


class _Walker:
    """The tree as lists, with each node's parent."""

    def __init__(self, tree: DecisionTree) -> None:
        self._pixel, self._threshold = tree.pixel.tolist(), tree.threshold.tolist()
        self._sides = list(zip(tree.left.tolist(), tree.right.tolist(), strict=True))
        self._class = tree.share.argmax(1).tolist()
        self._parent = {child: node for node, sides in enumerate(self._sides) for child in sides if child >= 0}

    def changes(self, leaf: int, label: int, image: Tensor) -> list[tuple[int, float]]:
        """Pixels and their new values; none where no leaf of another class is in reach."""
        below = leaf
        while below in self._parent:
            node = self._parent[below]
            other = next(side for side in self._sides[node] if side != below)
            if (found := self._into(node, other, label, image)) is not None:
                return found
            below = node
        return []

    def _into(self, node: int, side: int, label: int, image: Tensor) -> list[tuple[int, float]] | None:
        """Breadth first from a node into one of its sides, to the first leaf of another class that can be reached."""
        waiting: list[tuple[int, dict[int, float]]] = []
        self._enter(waiting, node, side, {}, image)
        while waiting:
            here, changed = waiting.pop(0)
            if self._pixel[here] < 0:
                if self._class[here] != label and self._ends_at(here, changed, image):
                    return list(changed.items())
                continue
            for child in self._sides[here]:
                self._enter(waiting, here, child, changed, image)
        return None

    def _enter(
        self,
        waiting: list[tuple[int, dict[int, float]]],
        node: int,
        side: int,
        changed: dict[int, float],
        image: Tensor,
    ) -> None:
        """Queue a side of a node, with the change of its pixel that leads there, where [0, 1] has one."""
        pixel, threshold = self._pixel[node], self._threshold[node]
        value = changed.get(pixel, float(image[pixel]))
        goes_left = side == self._sides[node][0]
        if (value <= threshold) != goes_left:
            value = threshold - BEYOND if goes_left else threshold + BEYOND
            if not 0 <= value <= 1:
                return
            changed = {**changed, pixel: value}
        waiting.append((side, changed))

    def _ends_at(self, leaf: int, changed: dict[int, float], image: Tensor) -> bool:
        """Whether the changed image comes to the leaf, which a later change of a pixel higher up may prevent."""
        node = 0
        while self._pixel[node] >= 0:
            value = changed.get(self._pixel[node], float(image[self._pixel[node]]))
            node = self._sides[node][0 if value <= self._threshold[node] else 1]
        return node == leaf

"""Complete verification of small networks: is there a misclassified point in the box, by mixed-integer programming.

The solver compares all numbers with the same tolerance, and drops small coefficients. So the variables of each node are
counted in the largest number that it can put out, each row in its largest coefficient, and each row is widened by the
tolerance: what the solver takes for infeasible is so without it.

Whatever float32 adds to what a node should compute is a variable, too, between its bounds. From the second layer on
they are much wider than what the solver tolerates (about 1e-6); at the first they are as wide, and it is trusted.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array

from attacks.errors import InputError
from model_zoo.bounds.crown import leak_of
from model_zoo.bounds.graph import IMAGE, Network
from model_zoo.bounds.layers import Convolution, Dense, Flatten, MaxPool
from model_zoo.bounds.operations import Activation, Sum
from model_zoo.bounds.reach import Reach
from model_zoo.bounds.verify import FOUND, INFEASIBLE, OUT_OF_TIME, Answer

TOLERANCE = 1e-6
"""Of HiGHS, for rows and whole numbers."""
FIRST = 1e9
"""A gap that any point closes: the solver stops at the first one that it finds."""


@dataclass(frozen=True)
class Program:
    """A network as the rows of a program: what every node has to do with those before it.

    Args:
        network: without max pooling.
    """

    network: Network

    def __post_init__(self) -> None:
        for node in self.network.nodes:
            if isinstance(node.operation, MaxPool):
                raise InputError(
                    f"layer {node.name}: expected a network without max pooling, which alone is verified by milp, got "
                    "MaxPool2d; certify by crown"
                )

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where the variables of each node begin, and where those of the last end."""
        sizes = [torch.Size(node.shape).numel() for node in self.network.nodes]
        return np.cumsum([0, *sizes])

    @cached_property
    def matrices(self) -> dict[int, tuple[Any, NDArray[np.float64]]]:
        """By place of a linear layer, its weights as a sparse matrix, and its constants."""
        found = {}
        for place, node in enumerate(self.network.nodes):
            if isinstance(node.operation, Dense | Convolution):
                before = self.network.nodes[node.feeds[0]].shape
                size = torch.Size(before).numel()
                one = torch.eye(size, dtype=torch.float64).view(size, *before)
                bias = node.operation(torch.zeros(1, *before, dtype=torch.float64)).flatten()
                weights = (node.operation(one).flatten(1) - bias).T
                found[place] = csr_array(weights.numpy()), bias.numpy()
        return found

    def answer(self, reaches: Sequence[Reach], label: int, other: int, seconds: float) -> Answer:
        """Whether the logit of another class can reach that of the label.

        Args:
            reaches: of one image (N = 1), of every node, by any bound.
            seconds: after which it is unknown.

        Source: Tjeng et al., arXiv:1711.07356, Section 4.
        """
        rows = _Rows(int(self.starts[-1]))
        for place, node in enumerate(self.network.nodes):
            if place == IMAGE:
                continue
            own, feeds = self._variables(place), [self._variables(feed) for feed in node.feeds]
            noise = reaches[place].noise
            slack = np.zeros(len(own)) if noise is None else noise.flatten().numpy()
            match node.operation:
                case Dense() | Convolution():
                    weights, bias = self.matrices[place]
                    rows.add([(feeds[0], weights), (own, -1.0)], -bias - slack, slack - bias)
                case Flatten():
                    rows.add([(feeds[0], 1.0), (own, -1.0)], 0.0, 0.0)
                case Sum():
                    rows.add([(feeds[0], 1.0), (feeds[1], 1.0), (own, -1.0)], -slack, slack)
                case _:
                    assert isinstance(node.operation, Activation)
                    lower, upper = _ends(reaches[node.feeds[0]])
                    rows.add_activation(feeds[0], own, lower, upper, leak_of(node.operation), slack)
        logits = self._variables(self.network.last)
        rows.add([(logits[[label]], 1.0), (logits[[other]], -1.0)], -np.inf, 0.0)
        cost = np.zeros(rows.count)
        cost[logits[label]], cost[logits[other]] = 1.0, -1.0
        lower, upper = (np.concatenate(side) for side in zip(*map(_ends, reaches), strict=True))
        return self._solved(rows, cost, lower, upper, seconds)

    def _variables(self, place: int) -> NDArray[np.int64]:
        return np.arange(self.starts[place], self.starts[place + 1])

    def _units(self, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the variables of all nodes are counted in: the largest number that their node can put out."""
        nodes = [slice(*ends) for ends in itertools.pairwise(self.starts)]
        return np.concatenate([np.full(at.stop - at.start, _largest(lower[at], upper[at])) for at in nodes])

    def _solved(
        self,
        rows: "_Rows",
        cost: NDArray[np.float64],
        lower: NDArray[np.float64],
        upper: NDArray[np.float64],
        seconds: float,
    ) -> Answer:
        binaries = rows.count - len(lower)
        unit = np.append(self._units(lower, upper), np.ones(binaries))
        lower, upper = np.append(lower, np.zeros(binaries)) / unit, np.append(upper, np.ones(binaries)) / unit
        bounds = Bounds(lower, upper)
        is_whole = np.append(np.zeros(rows.count - binaries), np.ones(binaries))
        options = {"time_limit": seconds, "mip_rel_gap": FIRST}
        cost = cost * unit / np.abs(cost * unit).max()
        constraint = rows.constraint(unit)
        solved = milp(cost, integrality=is_whole, bounds=bounds, constraints=constraint, options=options)
        if solved.status == 2:
            return Answer(INFEASIBLE)
        if solved.x is None:
            return Answer(OUT_OF_TIME)
        point = (solved.x * unit)[: self.starts[1]].reshape(self.network.nodes[IMAGE].shape)
        return Answer(FOUND, torch.from_numpy(point.copy()))


def _largest(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> float:
    """The largest absolute number between bounds; 1 where all is 0."""
    return float(max(np.abs(lower).max(), np.abs(upper).max())) or 1.0


def _ends(reach: Reach) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return reach.box.lower.flatten().numpy(), reach.box.upper.flatten().numpy()


class _Rows:
    """Constraints that are added up, over variables whose number may grow."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
        self._lower: list[NDArray[np.float64]] = []
        self._upper: list[NDArray[np.float64]] = []
        self._height = 0

    def add(self, terms: Sequence[tuple[NDArray[np.int64], Any]], lower: Any, upper: Any) -> None:
        """lower <= the sum of terms <= upper, a row each.

        Args:
            terms: variables, and a number, one a row, or a sparse matrix (rows, variables).
        """
        height = next((factor.shape[0] for _, factor in terms if hasattr(factor, "tocoo")), len(terms[0][0]))
        for variables, factor in terms:
            if hasattr(factor, "tocoo"):
                sparse = factor.tocoo()
                row, column, value = sparse.coords[0], variables[sparse.coords[1]], sparse.data
            else:
                row, column, value = np.arange(height), variables, np.broadcast_to(factor, height)
            self._parts.append((row + self._height, column, value))
        self._lower.append(np.broadcast_to(lower, height))
        self._upper.append(np.broadcast_to(upper, height))
        self._height += height

    def add_activation(
        self,
        z: NDArray[np.int64],
        h: NDArray[np.int64],
        lower: NDArray[np.float64],
        upper: NDArray[np.float64],
        leak: float,
        slack: NDArray[np.float64],
    ) -> None:
        """h is z where that is positive, else leak z, but for some slack; a binary variable where both can be."""
        for rows, slope in ((lower >= 0, 1.0), ((upper <= 0) & (lower < 0), leak)):
            self.add([(z[rows], slope), (h[rows], -1.0)], -slack[rows], slack[rows])
        rows = (lower < 0) & (upper > 0)
        z, h, low, high, slack = z[rows], h[rows], lower[rows], upper[rows], slack[rows]
        on = np.arange(self.count, self.count + len(z))
        self.count += len(z)
        self.add([(h, 1.0), (z, -1.0)], -slack, np.inf)
        self.add([(h, 1.0), (z, -leak)], -slack, np.inf)
        self.add([(h, 1.0), (z, -1.0), (on, -(1 - leak) * low)], -np.inf, slack - (1 - leak) * low)
        self.add([(h, 1.0), (z, -leak), (on, -(1 - leak) * high)], -np.inf, slack)

    def constraint(self, unit: NDArray[np.float64]) -> LinearConstraint:
        """All rows, of variables that are counted in some unit each, and widened by the solver's tolerance."""
        row, column, value = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        value = value * unit[column]
        size = np.zeros(self._height)
        np.maximum.at(size, row, np.abs(value))
        size[size == 0] = 1.0
        matrix = coo_array((value / size[row], (row, column)), shape=(self._height, self.count)).tocsr()
        lower, upper = np.concatenate(self._lower) / size, np.concatenate(self._upper) / size
        return LinearConstraint(matrix, lower - TOLERANCE, upper + TOLERANCE)

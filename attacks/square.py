"""Square attack: random search over square-shaped changes, by the logits alone."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.losses import logit_margin
from attacks.oracle import Oracle
from attacks.query_cache import QueryCache, key_of
from attacks.scale import PER_CHANNEL, PER_IMAGE, unit
from attacks.threat_model import ThreatModel

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The numbers of queries after which the share of pixels in a square halves."""

SAME_ANSWER = 1e-4
"""Largest relative difference of two margins of one point in one batch; randomised models differ by more."""

Change = Callable[[Tensor | None, Tensor | int, Tensor], Tensor]
"""Rows (M,) of the batch, which query (M,) of the step, and where these images are (M, C, H, W): the points to try.

No rows and one number for all images of the batch; or rows (M, 1), queries (M, Q) and points (M, 1, C, H, W)."""


@dataclass(frozen=True)
class State:
    """x, x_adv (N, C, H, W); y (N,); steps (N,), each of several queries; margin (N,) of x_adv; the images' draws; the
    points asked about."""

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor
    margin: Tensor
    draws: Draws
    cache: QueryCache


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> State:
    """Vertical stripes of +-epsilon (Linf), a grid of bumps (L2).

    Args:
        x: (N, C, H, W) in [0, 1], not modified; y: (N,) class indices.
    """
    channels, width = x.shape[1], x.shape[3]
    if threat.norm == "Linf":
        delta = threat.epsilon * _signs(draws.uniform((channels, 1, width), stream=1)).expand_as(x)
    else:
        delta = _bump_grid(x, draws)
        delta = threat.epsilon * unit(delta)
    unknown = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)  # a user's file may set another default
    cache = QueryCache.empty(x, remembers=threat.norm == "Linf")
    return State(x, y, threat.project(x + delta, x), draws.step, unknown, draws, cache)


def step(oracle: Oracle, state: State, *, queries_per_step: int, p_init: float) -> State:
    """Try changes one after the other, and keep each that lowers the margin.

    Args:
        queries_per_step: how many changes one step tries.
        p_init: share of the pixels in a square at the beginning.

    Returns: the next state; its x_adv lies inside the threat model.
    Source: Andriushchenko et al., arXiv:1912.00049, Algorithms 1 to 3.
    Deviations: a square may touch the last row and column, which the authors' code leaves out; squares are drawn for
        each image, not for each batch; a small image is asked about no point twice (`attacks/query_cache.py`),
        unless the classifier's answers are random; in L2 the start covers rows and columns that whole tiles leave over
        by parts of tiles, where the authors' code leaves them as they are (28x28: two rows and columns).
    """
    threat, y = oracle.threat, state.y
    x_best, margin = state.x_adv, state.margin
    starts = 0 in oracle.counts_of(state.steps)
    if starts:
        rows = (state.steps == 0).nonzero().squeeze(1)
        margin = margin.index_copy(0, rows, logit_margin(oracle.logits(x_best[rows], rows=rows), y[rows]))
    change = (_linf_changes if threat.norm == "Linf" else _l2_changes)(threat, state, queries_per_step, p_init)
    cache = state.cache.copy()
    if cache.remembers:
        if starts:
            again = logit_margin(oracle.logits(x_best[rows], rows=rows), y[rows])
            cache.distrust(rows[(again - margin[rows]).abs() > SAME_ANSWER * margin[rows].abs()])
            cache.note(rows, key_of(x_best[rows]))
        x_best, margin = _search_by_cache(oracle, change, cache, x_best, y, margin, queries_per_step)
    else:
        for query in range(queries_per_step):
            x_new = change(None, query, x_best)
            new_margin = logit_margin(oracle.logits(x_new), y)
            better = new_margin < margin
            x_best = torch.where(better.view(-1, 1, 1, 1), x_new, x_best)
            margin = torch.where(better, new_margin, margin)
    return replace(state, x_adv=x_best, steps=state.steps + 1, margin=margin, cache=cache)


def _search_by_cache(
    oracle: Oracle, change: Change, cache: QueryCache, x_best: Tensor, y: Tensor, margin: Tensor, queries: int
) -> tuple[Tensor, Tensor]:
    """The same, without the queries whose answer is known: what was asked about before is no better than the best.

    Every image goes on to its own next point that is new.

    Args:
        cache: notes what is asked.

    Returns: the best points and their margins.
    """
    x_best, margin = x_best.clone(), margin.clone()
    images, numbers = (torch.arange(count, device=y.device) for count in (len(y), queries))
    keys = _keys_ahead(change, images, x_best, numbers)
    open_queries = ~cache.knows(images, keys)
    is_trusted = bool(cache.trusted.all())
    while True:
        rows = open_queries.any(1).nonzero().squeeze(1)
        if not len(rows):
            return x_best, margin
        own, is_open, labels = keys[rows], open_queries[rows], y[rows]
        query = is_open.byte().argmax(1)
        x_new = change(rows, query, x_best[rows])
        new_margin = logit_margin(oracle.logits(x_new, rows=rows), labels)
        asked = own.gather(1, query.unsqueeze(1))
        cache.note(rows, asked.squeeze(1))
        news = own != asked
        if not is_trusted:
            news = (news | ~cache.trusted[rows, None]).scatter_(1, query.unsqueeze(1), False)
        open_queries[rows] = is_open.logical_and_(news)
        better = (new_margin < margin[rows]).nonzero().squeeze(1)
        if len(better):
            moved, x_moved = rows[better], x_new[better]
            x_best[moved], margin[moved] = x_moved, new_margin[better]
            keys[moved] = fresh = _keys_ahead(change, moved, x_moved, numbers)
            ahead = numbers > query[better].unsqueeze(1)
            open_queries[moved] = ahead.logical_and_(~cache.knows(moved, fresh))


def _keys_ahead(change: Change, rows: Tensor, points: Tensor, numbers: Tensor) -> Tensor:
    """(M, Q) keys of all points that the step's changes (Q,) make of these points (M, C, H, W) of images `rows`."""
    return key_of(change(rows.unsqueeze(1), numbers.unsqueeze(0), points.unsqueeze(1)))


def _linf_changes(threat: ThreatModel, state: State, queries_per_step: int, p_init: float) -> Change:
    """Shifts a square by +-2 epsilon in each channel, which the projection makes +-epsilon around x.

    All that does not depend on the points tried before is computed at once: rows, columns and signs of all squares.
    """
    x = state.x
    draw = _draws(state, queries_per_step)
    side = _sides(state, queries_per_step, p_init, smallest=1)
    in_rows, in_columns = (_strip(draw[..., axis], side, x.shape[2 + axis]).to(x.dtype) for axis in (0, 1))
    shift = 2 * threat.epsilon * _signs(draw[..., 5:])
    rows = in_rows[:, :, None, :, None]
    columns = in_columns[:, :, None, None, :] * shift[..., None, None]
    lowest, highest = threat.project(x - 1, x), threat.project(x + 1, x)

    def change(images: Tensor | None, query: Tensor | int, points: Tensor) -> Tensor:
        low, high = (lowest, highest) if images is None else (lowest[images], highest[images])
        by_row, by_column = _of(rows, images, query), _of(columns, images, query)  # 0 or 1, and 0 or the shift: exact
        return torch.addcmul(points, by_row, by_column).clamp_(low, high)

    return change


def _of(table: Tensor, images: Tensor | None, query: Tensor | int) -> Tensor:
    """What a table (N, Q, ...) has for these images at these queries; for all images at one query."""
    return table[:, query] if images is None else table[images, query]


def _l2_changes(threat: ThreatModel, state: State, queries_per_step: int, p_init: float) -> Change:
    """Spends the change of one window in another, there shaped as two bumps of opposite sign."""
    draws = _draws(state, queries_per_step)
    sides = _sides(state, queries_per_step, p_init, smallest=3)

    def change(images: Tensor | None, query: Tensor | int, points: Tensor) -> Tensor:
        x = state.x if images is None else state.x[images]
        draw, side = _of(draws, images, query), _of(sides, images, query)
        delta = points - x
        rows, columns, into = _window(x, side, draw[:, 0], draw[:, 1])
        _, _, out = _window(x, side, draw[:, 2], draw[:, 3])
        both = torch.maximum(into, out)
        left_over = (threat.epsilon**2 - delta.pow(2).sum(PER_IMAGE, keepdim=True)).clamp_min(0) / x.shape[1]
        budget = left_over + (delta * both).pow(2).sum(PER_CHANNEL, keepdim=True)

        swap = (draw[:, 4] > 0.5).view(-1, 1, 1)
        along, across = torch.where(swap, columns, rows), torch.where(swap, rows, columns)
        bumps = (_lookup(side, along, across).unsqueeze(1) * into) * _signs(draw[:, 5:])[:, :, None, None]
        old = delta * into
        fresh = unit(bumps + unit(old, PER_CHANNEL), PER_CHANNEL) * budget.sqrt()
        moved = delta * (1 - both) + fresh * into
        return threat.project(x + threat.epsilon * unit(moved), x)

    return change


def _draws(state: State, queries_per_step: int) -> Tensor:
    """(N, queries, 5 + C) in [0, 1): corners of two windows, whether the bumps are turned, a sign for each channel."""
    return replace(state.draws, step=state.steps).uniform((queries_per_step, 5 + state.x.shape[1]))


def _sides(state: State, queries_per_step: int, p_init: float, *, smallest: int) -> Tensor:
    """(N, queries) side lengths of the squares at each image's query counts."""
    height, width = state.x.shape[2:]
    device = state.x.device
    count = state.steps[:, None] * queries_per_step + torch.arange(queries_per_step, device=device)
    halvings = (count[..., None] > torch.tensor(HALVINGS, device=device)).sum(-1)
    side = (p_init * 0.5**halvings * height * width).sqrt().round().long().clamp_min(smallest)
    if smallest > 1:
        side = side + (side % 2 == 0).long()
    return side.clamp_max(min(height, width))


def _strip(place: Tensor, side: Tensor, length: int) -> Tensor:
    """(N, Q, length) bool: the pixels of one axis that intervals of the given sides at uniform places cover."""
    first = (place * (length - side + 1)).long()[..., None]
    pixel = torch.arange(length, device=place.device)
    return (pixel >= first) & (pixel < first + side[..., None])


def _window(x: Tensor, side: Tensor, top: Tensor, left: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A square at a uniform place in each image.

    Args:
        side: (N,) pixels; top, left: (N,) in [0, 1), its place.

    Returns: (N, H, W) row and column of each pixel, counted from the square's corner, and (N, 1, H, W) ones inside it.
    """
    height, width = x.shape[2:]
    corner_row = (top * (height - side + 1)).long().view(-1, 1, 1)
    corner_column = (left * (width - side + 1)).long().view(-1, 1, 1)
    rows = (torch.arange(height, device=x.device).view(1, -1, 1) - corner_row).expand(-1, -1, width)
    columns = (torch.arange(width, device=x.device).view(1, 1, -1) - corner_column).expand(-1, height, -1)
    size = side.view(-1, 1, 1)
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    return rows, columns, inside.unsqueeze(1).float()


def _bump_grid(x: Tensor, draws: Draws) -> Tensor:
    """(N, C, H, W): the image tiled with double bumps, each turned and signed at random."""
    _, channels, height, width = x.shape
    side = max(height // 5, 1)
    rows = torch.arange(height, device=x.device) - (height - 5 * side) // 2
    columns = torch.arange(width, device=x.device) - (width - 5 * side) // 2
    tile = (rows.clamp_min(0) // side)[:, None], (columns.clamp_min(0) // side)[None, :]
    tiles = int(tile[0].max()) + 1, int(tile[1].max()) + 1
    sign = _signs(draws.uniform((channels, *tiles), stream=1))[:, :, tile[0], tile[1]]
    swap = draws.uniform(tiles, stream=2)[:, tile[0], tile[1]] > 0.5
    pattern = _pattern(side).to(x.device)
    straight = pattern[(rows % side)[:, None], (columns % side)[None, :]]
    turned = pattern[(columns % side)[None, :], (rows % side)[:, None]]
    inside = ((rows >= 0)[:, None] & (columns >= 0)[None, :]).float()
    return torch.where(swap, turned, straight).unsqueeze(1) * sign * inside


def _lookup(side: Tensor, along: Tensor, across: Tensor) -> Tensor:
    """(N, H, W): the double bump of each image's side length at the given coordinates (anything outside of it)."""
    kinds, which = side.unique(return_inverse=True)
    largest = int(kinds[-1])
    table = torch.zeros((len(kinds), largest, largest), device=side.device)
    for row, kind in enumerate(kinds.tolist()):
        table[row, :kind, :kind] = _pattern(kind)
    return table[which.view(-1, 1, 1), along.clamp(0, largest - 1), across.clamp(0, largest - 1)]


@functools.cache
def _pattern(side: int) -> Tensor:
    """(side, side): a bump above, one of opposite sign below, of unit length."""
    upper, lower = side // 2, side - side // 2
    pattern = torch.cat([_bump(upper, side), -_bump(lower, side)])
    scaled: Tensor = pattern / pattern.norm()
    return scaled


def _bump(rows: int, columns: int) -> Tensor:
    """(rows, columns): at distance m from the centre the sum of 1/j^2 from j = m + 1 on; of unit length."""
    distance = torch.maximum(
        (torch.arange(rows) - rows // 2).abs()[:, None], (torch.arange(columns) - columns // 2).abs()[None, :]
    )
    reach = max(rows, columns) // 2 + 1
    sums = torch.cat([torch.zeros(1), (1.0 / torch.arange(1, reach + 1) ** 2).cumsum(0)])
    bump = sums[reach] - sums[distance]
    scaled: Tensor = bump / bump.norm().clamp_min(1e-12)
    return scaled


def _signs(uniform: Tensor) -> Tensor:
    """+1 or -1 from draws in [0, 1)."""
    return torch.where(uniform < 0.5, -1.0, 1.0)

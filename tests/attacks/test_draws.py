import itertools
import math
import random
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from attacks.draws import Draws, philox4x32

ONES = 0xFFFFFFFF


def draws(
    index: list[int] | range, *, seed: int = 5, restart: list[int] | None = None, step: list[int] | None = None
) -> Draws:
    """Draws of these images, at restart 0 and step 0 unless told otherwise."""
    zeros = [0] * len(index)
    return Draws(seed, *(torch.tensor(list(words)) for words in (index, restart or zeros, step or zeros)))


def python_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 as in Salmon et al., Section 3.3: on Python's integers, round by round from the key schedule."""
    left, right = (counter[1], counter[0]), (counter[3], counter[2])
    for number in range(10):
        key0, key1 = ((word + number * weyl) % 2**32 for word, weyl in zip(key, (0x9E3779B9, 0xBB67AE85), strict=True))
        high0, low0 = divmod(left[1] * 0xD2511F53, 2**32)
        high1, low1 = divmod(right[1] * 0xCD9E8D57, 2**32)
        left, right = (low1, high1 ^ left[0] ^ key0), (low0, high0 ^ right[0] ^ key1)
    return [left[1], left[0], right[1], right[0]]


def python_words(count: int, *, seed: int, index: int, restart: int, step: int, stream: int) -> list[int]:
    blocks = range(math.ceil(count / 4))
    key = [seed % 2**32, seed // 2**32]
    return list(
        itertools.chain(*(python_philox([block, step, restart * 256 + stream, index], key) for block in blocks))
    )[:count]


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([ONES] * 4, [ONES] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter: list[int], key: list[int], answer: list[int]) -> None:
    assert philox4x32(torch.tensor(counter), torch.tensor(key)).tolist() == answer
    assert python_philox(counter, key) == answer


def test_philox_equals_an_implementation_on_pythons_integers() -> None:
    rng = random.Random(0)
    for _ in range(20):
        key = [rng.getrandbits(32) for _ in range(2)]
        counters = [[rng.getrandbits(32) for _ in range(4)] for _ in range(10)]
        answers = [python_philox(counter, key) for counter in counters]
        assert philox4x32(torch.tensor(counters), torch.tensor(key)).tolist() == answers


def test_uniform_draws_are_the_high_bits_of_the_words_of_their_key() -> None:
    seed = 0x0123456789ABCDEF
    drawn = draws([7, 70000], seed=seed, restart=[0, 3], step=[0, 19]).uniform((2, 3), stream=1)
    for row, (index, restart, step) in enumerate([(7, 0, 0), (70000, 3, 19)]):
        words = python_words(6, seed=seed, index=index, restart=restart, step=step, stream=1)
        assert drawn[row].flatten().tolist() == [(word >> 8) / 2**24 for word in words]


def test_normal_draws_are_box_and_muller_on_pairs_of_words() -> None:
    drawn = draws([9], restart=[2], step=[4]).normal((5,))
    words = python_words(10, seed=5, index=9, restart=2, step=4, stream=0)
    expected = [
        math.sqrt(-2 * math.log((a + 1) / 2**32)) * math.cos(2 * math.pi * b / 2**32)
        for a, b in zip(words[0::2], words[1::2], strict=True)
    ]
    assert drawn[0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_a_draw_depends_neither_on_place_nor_batch_nor_the_other_images(kind: str) -> None:
    index, restart, step = [4, 1, 30000, 1, 9], [0, 2, 0, 0, 7], [3, 3, 0, 1, 50]

    def with_pass_counts(rows: list[int]) -> Tensor:
        index_of, restart_of, step_of = ([words[row] for row in rows] for words in (index, restart, step))
        values: Tensor = getattr(draws(index_of, restart=restart_of, step=step_of), kind)((1, 3, 3))
        return values

    whole = with_pass_counts([0, 1, 2, 3, 4])
    for rows in ([0], [3], [4, 2, 0, 1, 3], [2, 2]):
        assert torch.equal(with_pass_counts(rows), whole[rows])


def test_draws_at_the_start_are_those_of_step_0_and_of_restart_0_unless_given() -> None:
    index = torch.tensor([3, 4])
    assert torch.equal(Draws.start(5, index).uniform((4,)), draws([3, 4]).uniform((4,)))
    restarted = Draws.start(5, index, torch.tensor([1, 0]))
    assert torch.equal(restarted.uniform((4,)), draws([3, 4], restart=[1, 0]).uniform((4,)))


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_draws_of_different_keys_differ_and_are_uncorrelated(kind: str) -> None:
    size = 20000
    base = draws([3], seed=11, restart=[1], step=[2])
    varied = {
        "base": (base, 0),
        "seed": (replace(base, seed=12), 0),
        "high word of the seed": (replace(base, seed=11 + 2**32), 0),
        "index": (replace(base, index=base.index + 1), 0),
        "restart": (replace(base, restart=base.restart + 1), 0),
        "step": (replace(base, step=base.step + 1), 0),
        "stream": (base, 1),
        "step and restart exchanged": (replace(base, restart=base.step, step=base.restart), 0),
    }
    rows = torch.stack([getattr(some, kind)((size,), stream=stream)[0] for some, stream in varied.values()])
    off_diagonal = torch.corrcoef(rows.double()) - torch.eye(len(rows))
    assert off_diagonal.abs().max() < 5 / math.sqrt(size), list(varied)


def test_uniform_draws_are_multiples_of_2_to_the_minus_24_in_the_unit_interval() -> None:
    values = draws(range(100)).uniform((10, 10))
    assert values.dtype == torch.float32
    assert values.shape == (100, 10, 10)
    assert values.min() >= 0
    assert values.max() < 1
    assert torch.equal(values.double() * 2**24, (values.double() * 2**24).round())


@pytest.mark.parametrize(("kind", "distribution"), [("uniform", "uniform"), ("normal", "norm")])
@pytest.mark.parametrize("axis", ["pixels of one image", "images at one pixel", "steps of one image", "neighbours"])
def test_draws_have_their_distribution_along_every_axis(kind: str, distribution: str, axis: str) -> None:
    size = 20000
    one, many = [0] * size, list(range(size))
    some, shape = {
        "pixels of one image": (draws([0]), (size,)),
        "images at one pixel": (draws(many), (1,)),
        "steps of one image": (draws(one, step=many), (1,)),
        "neighbours": (draws([0]), (2 * size,)),
    }[axis]
    values = getattr(some, kind)(shape).flatten().double()
    if axis == "neighbours":  # their sum has a distribution of its own, which dependent neighbours would miss
        sums = values[0::2] + values[1::2]
        values, distribution = (sums / math.sqrt(2), "norm") if kind == "normal" else (sums, "triang")
    parameters = (0.5, 0, 2) if distribution == "triang" else ()
    assert stats.kstest(values.numpy(), distribution, parameters).pvalue > 0.001

"""Rotations and shifts: what is made of an image, what is refused, and what the searches find."""

import pytest
import torch
from torch import Tensor, nn

from attacks import attack
from attacks.errors import InputError
from attacks.judge import judge
from attacks.registry import ATTACKS
from attacks.spatial import transform
from attacks.threat_model import ThreatModel

THREAT = ThreatModel("spatial-30deg", 3.0)


def images(n: int = 6, size: int = 12) -> Tensor:
    return torch.rand(n, 2, size, size, generator=torch.Generator().manual_seed(0))


def rows(*parameters: tuple[float, float, float]) -> Tensor:
    return torch.tensor(parameters)


def test_without_rotation_and_shift_an_image_is_the_same_to_the_bit() -> None:
    x = images()
    assert torch.equal(transform(x, torch.zeros(6, 3)), x)


@pytest.mark.parametrize(("right", "down"), [(2, 0), (0, 3), (-1, 2), (-4, -5)])
def test_a_shift_by_whole_pixels_moves_them_there_and_leaves_black_behind(right: int, down: int) -> None:
    x = images(1)
    expected = torch.zeros_like(x)
    height, width = x.shape[2:]
    for row in range(height):
        for column in range(width):
            if 0 <= row + down < height and 0 <= column + right < width:
                expected[:, :, row + down, column + right] = x[:, :, row, column]
    torch.testing.assert_close(transform(x, rows((0, right, down))), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (-90, -1)])
def test_a_quarter_turn_is_that_of_the_array_anticlockwise(degrees: int, turns: int) -> None:
    x = images()
    expected = torch.rot90(x, turns, (2, 3))
    torch.testing.assert_close(transform(x, rows((degrees, 0, 0)).expand(6, 3)), expected, rtol=0, atol=5e-6)


def test_an_image_is_rotated_first_and_shifted_then() -> None:
    x = images(1)
    both = transform(x, rows((90, 2, 0)))
    one_by_one = transform(transform(x, rows((90, 0, 0))), rows((0, 2, 0)))
    torch.testing.assert_close(both, one_by_one, rtol=0, atol=5e-6)


def test_whatever_is_made_of_an_image_is_inside_the_pixel_range() -> None:
    x = (images(50) > 0.5).float()
    parameters = (torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) - 0.5) * torch.tensor([360, 20, 20])
    made = transform(x, parameters)
    assert made.min() >= 0
    assert made.max() <= 1


def test_parameters_are_inside_where_angle_and_both_shifts_are() -> None:
    inside = rows((30, 3, -3), (-30, -3, 3), (0, 0, 0))
    outside = rows((30.1, 0, 0), (0, 3.1, 0), (0, 0, -3.1), (float("nan"), 0, 0), (0, float("nan"), 0))
    assert THREAT.contains(inside, images(3)).all()
    assert not THREAT.contains(outside, images(5)).any()


def test_the_judge_makes_the_images_itself_and_refuses_parameters_beyond_the_limits() -> None:
    model, x, y = ByCentre(), spots(1), torch.tensor([0])
    assert judge(model, x, y, rows((0, 0, 0)), THREAT, batch_size=1).tolist() == [True]
    assert judge(model, x, y, rows((0, 3, 3)), THREAT, batch_size=1).tolist() == [False]
    with pytest.raises(ValueError, match="outside the threat model"):
        judge(model, x, y, rows((31, 0, 0)), THREAT, batch_size=1)


@pytest.mark.parametrize("norm", ["spatial", "spatial-200deg", "spatial-xdeg", "spatial--5deg"])
def test_a_name_without_an_angle_up_to_180_degrees_is_refused(norm: str) -> None:
    with pytest.raises(InputError, match=r"norm must be one of Linf, L2, L1, L0, spatial-30deg, got"):
        ThreatModel(norm, 1.0)


class ByCentre(nn.Module):
    """Two classes: whether the mean of the four pixels in the middle is well above that of all."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        centre = x[:, :, height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1].mean((1, 2, 3))
        return torch.stack([centre - x.mean((1, 2, 3)), torch.zeros_like(centre) + 0.3], 1)


def spots(n: int = 8) -> Tensor:
    """A square of four bright pixels in the middle of a dark image, less bright from image to image."""
    x = torch.zeros(n, 1, 10, 10)
    x[:, :, 4:6, 4:6] = torch.linspace(1.0, 0.4, n)[:, None, None, None]
    return x


@pytest.mark.parametrize("name", ["spatial-grid", "spatial-grid-31", "spatial-random-10", "spatial-random-1000"])
def test_what_a_search_finds_is_what_a_finer_grid_allows(name: str) -> None:
    model, x, y = ByCentre(), spots(), torch.zeros(8, dtype=torch.int64)
    for limit in (0.2, 0.8):
        fine = torch.cartesian_prod(*(torch.linspace(-end, end, 21) for end in (10.0, limit, limit)))
        breakable = torch.stack(
            [(model(transform(one[None].expand(len(fine), -1, -1, -1), fine)).argmax(1) != 0).any() for one in x]
        )
        found = attack(model.eval(), x, y, name, epsilon=limit, norm="spatial-10deg", precision="fp32")
        assert found.correct.all()
        assert not (~found.robust & ~breakable).any()
        if name != "spatial-random-10":
            assert (found.robust == ~breakable).all()
        assert (model(found.x_adv).argmax(1)[~found.robust] == 1).all()
    assert breakable.any()
    assert not breakable.all()


def test_the_grid_asks_about_each_of_its_points_once_and_the_corners_are_among_them() -> None:
    asked: list[Tensor] = []

    class Watched(ByCentre):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(x)
            return super().forward(x)

    x, y = spots(1), torch.zeros(1, dtype=torch.int64)
    result = attack(Watched().eval(), x, y, "spatial-grid", epsilon=0.1, norm="spatial-5deg", precision="fp32")
    assert result.forwards.tolist() == [11 * 25 + 1]  # and the best of them is judged
    corner = transform(x, rows((5, 0.1, -0.1)))
    assert any((part == corner).flatten(1).all(1).any() for part in asked if part.shape[1:] == x.shape[1:])


def test_attacks_of_norms_and_spatial_threats_refuse_each_other() -> None:
    with pytest.raises(InputError, match="spatial-grid is defined for spatial, got Linf"):
        ATTACKS["spatial-grid"].require_norm("Linf")
    with pytest.raises(InputError, match="pgd-20 is defined for Linf, L2, got spatial-30deg"):
        ATTACKS["pgd-20"].require_norm("spatial-30deg")


def test_a_model_that_answers_at_random_is_judged_by_expectation() -> None:
    class Noisy(ByCentre):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0.01 * torch.randn(len(x), 2)

    x, y = spots(4), torch.zeros(4, dtype=torch.int64)
    found = attack(Noisy().eval(), x, y, "spatial-grid", epsilon=1.0, norm="spatial-10deg", precision="fp32", eot=1)
    assert found.is_randomized
    assert found.correct.all()
    assert not found.robust.any()

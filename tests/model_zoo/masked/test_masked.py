"""Masks: what each does to images or activations, and what every one of them and its surrogate keep."""

import io
import itertools

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from attacks.errors import InputError
from attacks.generators import seeded
from model_zoo.architectures.registry import build, find
from model_zoo.masked.activation_pruning import ActivationPruning
from model_zoo.masked.denoiser import Denoiser
from model_zoo.masked.jpeg import Jpeg
from model_zoo.masked.lid import MINIBATCH, Lid, _dimension
from model_zoo.masked.mask_spec import Learner, MaskSpec
from model_zoo.masked.neighbours import CAPACITY, Neighbours
from model_zoo.masked.projection import Projection
from model_zoo.masked.quilting import Quilting
from model_zoo.masked.random_inputs import ResizePad
from model_zoo.masked.registry import MASKS, find_mask, mask_of
from model_zoo.masked.squeezing import BitDepth, Median
from model_zoo.masked.thermometer import Thermometer
from model_zoo.masked.total_variation import TotalVariation
from model_zoo.masked.winners_take_all import WinnersTakeAll

every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
GIVES_NO_GRADIENT = (
    "thermometer",
    "bit-depth",
    "jpeg",
    "total-variation",
    "quilting",
    "denoiser",
    "projection",
    "neighbours",
)
OTHER_LOGITS = ("temperature", "distillation")


def images(n: int = 6, *shape: int) -> Tensor:
    return torch.rand(n, *(shape or (1, 8, 8)), generator=torch.Generator().manual_seed(0))


def masked(mask: MaskSpec, *, base: str = "digits-cnn") -> nn.Module:
    torch.manual_seed(0)
    model = build(f"{base}+{mask.name}-{mask.settings[0]:g}").eval()
    for part in model.modules():
        if isinstance(part, Quilting):  # whose database is empty at first
            part.own_loss(images(CAPACITY, *find(base).input_shape), torch.zeros(CAPACITY))
        if isinstance(part, Neighbours):  # and so is its
            part.own_loss(images(CAPACITY, *find(base).input_shape), torch.zeros(CAPACITY))
        if isinstance(part, Lid):  # and so is its minibatch
            shape = find(base).input_shape
            part.own_loss(images(MINIBATCH, *shape), torch.zeros(MINIBATCH, dtype=torch.int64))
    return model


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    point = x.clone().requires_grad_()
    with seeded("gradient"):
        return torch.autograd.grad(F.cross_entropy(model(point), torch.arange(len(x))), point)[0]


# All of them


@every_mask
@pytest.mark.parametrize("base", ["digits-cnn", "small-cnn", "strided-cnn"])
def test_a_masked_network_takes_images_in_both_modes_and_learns(mask: MaskSpec, base: str) -> None:
    model, x = masked(mask, base=base), images(2, *find(base).input_shape)
    assert model(x).shape == (2, 10 + mask.rejects)
    assert model(x).isfinite().all()
    logits = model.train()(x)
    loss = F.cross_entropy(logits, torch.tensor([0, 1]))
    loss = loss + sum(part.own_loss(x, torch.tensor([0, 1])) for part in model.modules() if isinstance(part, Learner))
    loss.backward()
    trained = [parameter.grad for name, parameter in model.named_parameters()]
    assert all(grad is not None for grad in trained)


@every_mask
def test_a_state_dict_brings_back_the_same_answers(mask: MaskSpec) -> None:
    first, second = masked(mask), build(f"digits-cnn+{mask.name}-{mask.settings[0]:g}").eval()
    second.load_state_dict(first.state_dict())
    with seeded("answers"):
        before = first(images())
    with seeded("answers"):
        assert torch.equal(second(images()), before)


@every_mask
def test_a_mask_gives_a_gradient_just_where_it_has_one_and_its_surrogate_always(mask: MaskSpec) -> None:
    model = masked(mask)
    assert gradient(model, images()).any() == (mask.name not in GIVES_NO_GRADIENT)
    grad = gradient(mask.surrogate(model).eval(), images())
    assert grad.isfinite().all()
    assert grad.flatten(1).any(1).all()


@every_mask
def test_a_surrogate_answers_as_the_model_does(mask: MaskSpec) -> None:
    model = masked(mask)
    answers = []
    for one in (model, mask.surrogate(model).eval()):
        with seeded("answers"), torch.no_grad():
            answers.append(one(images()))
    assert torch.equal(answers[0].argmax(1), answers[1].argmax(1))
    if mask.name not in OTHER_LOGITS:
        torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=0)


@every_mask
def test_a_mask_answers_at_random_just_where_its_entry_says_so(mask: MaskSpec) -> None:
    model = masked(mask)
    answers = []
    for key in range(4):
        with seeded(key), torch.no_grad():
            answers.append(model(images()))
    assert any(not torch.equal(a, b) for a, b in itertools.pairwise(answers)) is mask.randomized


@every_mask
def test_a_masked_model_does_not_depend_on_the_rest_of_the_batch(mask: MaskSpec) -> None:
    if mask.randomized:
        pytest.skip("its draws are the batch's")
    model = masked(mask)
    with torch.no_grad():
        torch.testing.assert_close(model(images())[:1], model(images()[:1]), rtol=1e-4, atol=1e-4)


# Names


def test_an_architecture_says_its_mask_and_what_is_unknown_is_answered_with_what_is_near() -> None:
    assert mask_of("digits-cnn+thermometer-16") is MASKS["thermometer"]
    assert mask_of("digits-cnn") is mask_of("resnet-18+cifar10-norm") is mask_of("wrn-28-10") is None
    assert find_mask("k-winners-0.1") == (MASKS["k-winners"], 0.1)
    with pytest.raises(InputError, match="did you mean 'thermometer-16'"):
        find("digits-cnn+thermomter-16")
    with pytest.raises(InputError, match=r"positive number of levels behind thermometer-, got 'x'"):
        find("digits-cnn+thermometer-x")


def test_masks_of_activations_refuse_a_network_without_modules_of_them() -> None:
    with pytest.raises(InputError, match="got none; use digits-cnn"):
        build("resnet-18+sap-100")


# One by one


def test_a_thermometer_is_one_above_each_level() -> None:
    x = torch.tensor([0.0, 0.1, 0.25, 0.6, 1.0]).view(5, 1, 1, 1)
    rows = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert Thermometer(4)(x).flatten(1).tolist() == rows
    assert ((Thermometer(4).soft(x + 0.01) > 0.5) == (Thermometer(4)(x + 0.01) > 0)).all()


def test_pruned_activations_are_unbiased_and_fewer_draws_keep_fewer() -> None:
    torch.manual_seed(0)
    h = torch.rand(1, 200)
    kept = {}
    for percent in (100, 20):
        pruning = ActivationPruning(percent).eval()
        draws = torch.stack([pruning(h) for _ in range(4000)])
        torch.testing.assert_close(draws.mean((0, 2)), h.mean(1), rtol=0.02, atol=0)
        kept[percent] = (draws > 0).double().mean().item()
    size = h / h.sum()
    for percent, share in kept.items():
        assert share == pytest.approx((1 - (1 - size) ** (200 * percent / 100)).mean().item(), abs=0.01)
    assert torch.equal(ActivationPruning(100).train()(h - 0.5), (h - 0.5).relu())


def test_the_winners_are_the_largest_share_of_an_image() -> None:
    h = torch.tensor([[[5.0, -1.0], [3.0, 4.0]], [[-5.0, -1.0], [-3.0, -4.0]]])
    assert WinnersTakeAll(0.5)(h).tolist() == [[[5.0, 0.0], [0.0, 4.0]], [[0.0, -1.0], [-3.0, 0.0]]]


def test_the_median_is_that_of_scipy() -> None:
    x = images(3, 1, 8, 8)
    for size in (2, 3):
        expected = [scipy.ndimage.median_filter(image.numpy(), size, mode="mirror") for image in x[:, 0]]
        torch.testing.assert_close(Median(size)(x)[:, 0], torch.from_numpy(np.stack(expected)))


def test_the_soft_median_is_a_mean_of_the_square_with_most_weight_on_the_median() -> None:
    x = images(3, 1, 8, 8).requires_grad_()
    filtered = Median(3)
    torch.testing.assert_close(filtered.softly(torch.full((1, 1, 8, 8), 0.3)), torch.full((1, 1, 8, 8), 0.3))
    (slope,) = torch.autograd.grad(filtered.softly(x)[:, 0, 4, 4].sum(), x)
    square = slope[:, 0, 3:6, 3:6].flatten(1)
    torch.testing.assert_close(square.sum(1), torch.ones(3))
    assert (square > 0).all()
    taken = x[:, 0, 3:6, 3:6].flatten(1).argsort(1)[:, 4]
    assert torch.equal(square.argmax(1), taken)


def test_bits_leave_two_to_the_power_of_them_levels() -> None:
    x = torch.linspace(0, 1, 1000).view(1, 1, 10, 100)
    assert [len(BitDepth(bits)(x).unique()) for bits in (1, 4)] == [2, 16]


@pytest.mark.parametrize("quality", [75, 25])
def test_jpeg_is_that_of_libjpeg(quality: int) -> None:
    smooth = F.interpolate(images(4, 1, 5, 5), (28, 28), mode="bicubic").clamp(0, 1)
    alike = []
    for image, ours in zip(smooth, Jpeg(quality)(smooth), strict=True):
        pixels, file = (255 * image[0]).round().byte().numpy(), io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        theirs = np.asarray(Image.open(file), dtype=np.float32)
        far = np.abs(255 * ours[0].numpy() - theirs)
        assert np.abs(pixels - theirs).max() > 2
        alike += [far[y : y + 8, x : x + 8].max() <= 2 for y in (0, 8, 16) for x in (0, 8, 16)]  # whole blocks
    assert np.mean(alike) > 0.9  # in the others a coefficient lies in the middle of two steps


def test_quilting_takes_each_patch_from_the_nearest_of_the_patches_it_saw() -> None:
    quilting, seen = Quilting((1, 7, 7), 3), images(40, 1, 7, 7)
    quilting.own_loss(seen[:20], torch.zeros(20))
    quilting.own_loss(seen[20:], torch.zeros(20))
    assert torch.equal(quilting(seen[:4]), seen[:4])  # the database holds them all
    x = images(2, 1, 7, 7).flip(3)
    found = quilting(x)
    assert found.shape == x.shape
    corner = x[0, 0, :3, :3]
    grid = [F.pad(one, (0, 2, 0, 2), mode="replicate")[0] for one in seen]
    patches = [one[row : row + 3, column : column + 3] for one in grid for row in (0, 3, 6) for column in (0, 3, 6)]
    nearest = min([*patches, torch.zeros(3, 3)], key=lambda patch: float((patch - corner).square().sum()))
    assert torch.equal(found[0, 0, :3, :3], nearest)


def test_total_variation_falls_and_no_image_near_the_minimum_is_better() -> None:
    torch.manual_seed(0)
    x, weight = images(2).double(), 0.2

    def energy(z: Tensor) -> Tensor:
        down, right = F.pad(z.diff(dim=2), (0, 0, 0, 1)), F.pad(z.diff(dim=3), (0, 1))
        return weight * (down**2 + right**2 + 1e-18).sqrt().sum() + (z - x).square().sum() / 2

    found = TotalVariation(weight)(x)
    assert energy(found) < 0.8 * energy(x)
    others = [energy(found + 0.05 * torch.randn_like(x)) for _ in range(50)]
    assert energy(found) < min(others)


def test_resized_images_are_padded_to_their_size() -> None:
    x = torch.ones(1, 1, 8, 8)
    with seeded("sizes"):
        sizes = {int(ResizePad(0.75)(x).sum()) for _ in range(200)}
    assert sizes == {36, 49, 64}


def test_a_projection_comes_nearer_with_more_steps_and_is_an_image_of_the_decoder() -> None:
    torch.manual_seed(0)
    few, many = (Projection((1, 8, 8), steps) for steps in (0, 300))
    many.load_state_dict(few.state_dict())
    made = few.decoder(few.starts).view(-1, 1, 8, 8).detach()
    wanted = few.decoder(few.starts[:1] + 0.5).view(-1, 1, 8, 8).detach()
    far = [(part(wanted) - wanted).square().sum() for part in (few, many)]
    assert far[1] < 0.2 * far[0]
    assert not torch.equal(many(wanted), made[:1])


def test_a_denoiser_takes_noise_away_once_it_is_trained() -> None:
    torch.manual_seed(0)
    clean = F.interpolate(images(64, 1, 2, 2), (8, 8), mode="bilinear")
    denoiser = Denoiser(1, 0.2)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        denoiser.own_loss(clean, torch.zeros(64)).backward()
        optimizer.step()
    noisy = clean + 0.2 * torch.randn_like(clean)
    assert (denoiser(noisy) - clean).square().mean() < 0.5 * (noisy - clean).square().mean()
    assert torch.equal(denoiser(noisy) * 255, (denoiser(noisy) * 255).round())


def test_neighbours_answer_by_the_images_that_came_last() -> None:
    model = Neighbours(nn.Flatten(), 4, k=3)
    x = torch.eye(4).repeat(300, 1).view(-1, 1, 2, 2)
    for part in x.split(100):
        model.train().own_loss(part, torch.zeros(len(part)))
    assert int(model.place) == 1200 % CAPACITY
    logits = model.eval()(torch.eye(4).view(4, 1, 2, 2))
    assert logits.argmax(1).tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(logits.exp() - 1e-3, torch.eye(4).softmax(1))


@pytest.mark.parametrize("dimension", [2, 5])
def test_the_local_intrinsic_dimension_of_uniform_points_is_that_of_their_space(dimension: int) -> None:
    torch.manual_seed(0)
    space = torch.linalg.qr(torch.randn(40, dimension))[0]
    inside = 0.5 * (2 * torch.rand(50, dimension) - 1)
    layer, beside = inside @ space.T, (2 * torch.rand(MINIBATCH, dimension) - 1) @ space.T
    found = _dimension(layer, beside, 20)
    assert found.mean().item() == pytest.approx(dimension, rel=0.25)
    distances = (layer[0] - beside).norm(dim=1).sort().values[:20]
    torch.testing.assert_close(found[0], -20 / (distances / distances[-1]).log().sum(), rtol=1e-4, atol=0)


def test_a_detector_rejects_where_its_log_odds_are_positive() -> None:
    model = masked(MASKS["lid"])
    assert isinstance(model, Lid)
    logits, dimensions = model.with_dimensions(images())
    torch.testing.assert_close(model(images())[:, :10], logits)
    assert dimensions.shape == (6, 8)  # the image and seven modules
    linear = model.detector[1]
    assert isinstance(linear, nn.Linear)
    for bias, is_rejected in ((100.0, True), (-100.0, False)):
        linear.bias.data.fill_(bias)
        assert (model(images()).argmax(1) == 10).all() == is_rejected
    assert torch.equal(model.train()(images()), model.network(images()))


def test_the_minibatch_is_the_last_images_that_the_detector_learnt_from() -> None:
    model = masked(MASKS["lid"])
    assert isinstance(model, Lid)
    for part in images(3 * MINIBATCH, 1, 8, 8).split(150):
        model.train().own_loss(part, torch.zeros(len(part), dtype=torch.int64))
    last = images(3 * MINIBATCH, 1, 8, 8)[-MINIBATCH:]
    assert sorted(model.reference.sum((1, 2, 3)).tolist()) == pytest.approx(sorted(last.sum((1, 2, 3)).tolist()))

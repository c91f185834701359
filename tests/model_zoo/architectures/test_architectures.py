import pytest
import torch
from torch import Tensor, nn

from attacks.errors import InputError
from attacks.models.normalisation import Normalize
from model_zoo.architectures.preact_resnet import PreActBlock, preact_resnet18
from model_zoo.architectures.registry import ARCHITECTURES, build, find
from model_zoo.architectures.small_cnn import SmallCNN
from model_zoo.architectures.strided_conv import HalvingConv2d
from model_zoo.architectures.wide_resnet import WideBlock, WideResNet

RUN = [
    "digits-cnn",
    "digits-small",
    "small-cnn",
    "strided-cnn",
    "resnet-18",
    "resnet-18-w16",
    "preact-resnet-18",
    "wrn-10-1",
    "wrn-16-2",
]


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return build(name)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def conv(inputs: int, outputs: int, kernel: int, *, bias: bool = False) -> int:
    return kernel * kernel * inputs * outputs + (outputs if bias else 0)


def bn(channels: int) -> int:
    return 2 * channels


def linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def images(name: str, n: int = 2) -> Tensor:
    return torch.rand(n, *find(name).input_shape, generator=torch.Generator().manual_seed(0))


def test_the_table_names_these_architectures_in_this_order() -> None:
    names = ["digits-cnn", "digits-small", "small-cnn", "strided-cnn", "resnet-18", "resnet-18-w16", "preact-resnet-18"]
    assert list(ARCHITECTURES) == [*names, "wrn-28-10", "wrn-34-10"]
    assert all(spec.name == name for name, spec in ARCHITECTURES.items())


def test_every_registered_architecture_is_run_or_is_a_larger_one_of_a_family_that_is() -> None:
    assert set(ARCHITECTURES) - set(RUN) == {"wrn-28-10", "wrn-34-10"}


@pytest.mark.parametrize("name", RUN)
@pytest.mark.parametrize("num_classes", [10, 3])
def test_images_become_finite_logits(name: str, num_classes: int) -> None:
    logits = build(name, num_classes).eval()(images(name))
    assert logits.shape == (2, num_classes)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", RUN)
def test_gradients_reach_all_parameters_and_the_images(name: str) -> None:
    torch.manual_seed(0)
    model = build(name)
    with torch.no_grad():  # SmallCNN's last layer starts at zero, which stops every gradient behind it
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    x = images(name, 4).requires_grad_()
    nn.functional.cross_entropy(model(x), torch.arange(4)).backward()
    silent = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []
    assert x.grad is not None
    assert x.grad.flatten(1).any(dim=1).all()


@pytest.mark.parametrize("name", ["digits-cnn", "strided-cnn"])
def test_networks_without_batch_norm_and_dropout_do_not_depend_on_the_mode(name: str) -> None:
    model, x = build(name), images(name)
    assert torch.equal(model.train()(x), model.eval()(x))


def test_parameter_counts_follow_from_the_definitions() -> None:
    def basic(inputs: int, outputs: int) -> int:
        shortcut = 0 if inputs == outputs else conv(inputs, outputs, 1) + bn(outputs)
        return conv(inputs, outputs, 3) + bn(outputs) + conv(outputs, outputs, 3) + bn(outputs) + shortcut

    def preact(inputs: int, outputs: int) -> int:
        shortcut = 0 if inputs == outputs else conv(inputs, outputs, 1)
        return bn(inputs) + conv(inputs, outputs, 3) + bn(outputs) + conv(outputs, outputs, 3) + shortcut

    def wide(depth: int, width: int) -> int:
        plan = [(16, 16 * width), (16 * width, 32 * width), (32 * width, 64 * width)]
        blocks = sum(preact(a, b) + ((depth - 4) // 6 - 1) * preact(b, b) for a, b in plan)
        return conv(3, 16, 3) + blocks + bn(64 * width) + linear(64 * width, 10)

    plan = [(64, 64), (64, 128), (128, 256), (256, 512)]
    narrow = [(a // 4, b // 4) for a, b in plan]
    derived = {
        "digits-cnn": conv(1, 32, 3, bias=True) + conv(32, 64, 3, bias=True) + linear(1024, 64) + linear(64, 10),
        "digits-small": conv(1, 8, 4, bias=True) + linear(128, 64) + linear(64, 10),
        "small-cnn": sum(conv(a, b, 3, bias=True) for a, b in [(1, 32), (32, 32), (32, 64), (64, 64)])
        + linear(1024, 200)
        + linear(200, 200)
        + linear(200, 10),
        "strided-cnn": conv(1, 16, 4, bias=True) + conv(16, 32, 4, bias=True) + linear(1568, 100) + linear(100, 10),
        "resnet-18": conv(3, 64, 3) + bn(64) + sum(basic(a, b) + basic(b, b) for a, b in plan) + linear(512, 10),
        "resnet-18-w16": conv(3, 16, 3) + bn(16) + sum(basic(a, b) + basic(b, b) for a, b in narrow) + linear(128, 10),
        "preact-resnet-18": conv(3, 64, 3)
        + sum(preact(a, b) + preact(b, b) for a, b in plan)
        + bn(512)
        + linear(512, 10),
        "wrn-28-10": wide(28, 10),
        "wrn-34-10": wide(34, 10),
    }
    assert derived == {
        "digits-cnn": 85_066,
        "digits-small": 9_042,
        "small-cnn": 312_202,
        "strided-cnn": 166_406,
        "resnet-18": 11_173_962,
        "resnet-18-w16": 701_466,
        "preact-resnet-18": 11_172_170,
        "wrn-28-10": 36_479_194,
        "wrn-34-10": 46_160_474,
    }
    assert {name: count(on_meta(name)) for name in ARCHITECTURES} == derived


def test_small_cnn_has_the_keys_and_the_initialisation_of_trades() -> None:
    model = SmallCNN()
    names = [f"feature_extractor.conv{i}" for i in range(1, 5)] + [f"classifier.fc{i}" for i in range(1, 4)]
    assert list(model.state_dict()) == [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    state = model.state_dict()
    for zero in [f"{name}.bias" for name in names[:4]] + ["classifier.fc3.weight", "classifier.fc3.bias"]:
        assert not state[zero].any(), zero
    weight = state["feature_extractor.conv4.weight"]  # Kaiming: variance 2 / fan-in, here 64 * 3 * 3
    assert weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.03)


def test_strided_cnn_has_the_keys_of_a_plain_sequence() -> None:
    assert list(on_meta("strided-cnn").state_dict()) == [f"{i}.{k}" for i in (0, 2, 5, 7) for k in ("weight", "bias")]


def test_resnet_18_has_the_keys_of_the_released_checkpoints() -> None:
    blocks = [
        f"layer{i}.{j}.{part}" for i in range(1, 5) for j in range(2) for part in ("conv1", "bn1", "conv2", "bn2")
    ]
    shortcuts = [f"layer{i}.0.shortcut.{j}" for i in (2, 3, 4) for j in (0, 1)]
    assert module_names("resnet-18") == {"conv1", "bn1", "linear", *blocks, *shortcuts}


def test_preact_resnet_18_has_the_keys_of_the_released_checkpoints() -> None:
    blocks = [
        f"layer{i}.{j}.{part}" for i in range(1, 5) for j in range(2) for part in ("bn1", "conv1", "bn2", "conv2")
    ]
    shortcuts = [f"layer{i}.0.shortcut.0" for i in (2, 3, 4)]
    assert module_names("preact-resnet-18") == {"conv1", "bn", "linear", *blocks, *shortcuts}


def test_wide_resnet_has_the_keys_of_the_released_checkpoints() -> None:
    parts = ("bn1", "conv1", "bn2", "conv2")
    blocks = [f"block{i}.layer.{j}.{part}" for i in (1, 2, 3) for j in range(5) for part in parts]
    shortcuts = [f"block{i}.layer.0.convShortcut" for i in (1, 2, 3)]
    assert module_names("wrn-34-10") == {"conv1", "bn1", "fc", *blocks, *shortcuts}


def module_names(name: str) -> set[str]:
    return {key.rpartition(".")[0] for key in on_meta(name).state_dict()}


def test_preact_resnet_18_without_the_final_batch_norm_lacks_its_parameters_only() -> None:
    with torch.device("meta"):
        full, bare = preact_resnet18(), preact_resnet18(final_bn=False, preactivated_shortcut=True)
    assert set(full.state_dict()) - set(bare.state_dict()) == {key for key in full.state_dict() if key[:3] == "bn."}
    assert count(full) - count(bare) == bn(512)


def test_the_two_shortcuts_of_preact_resnet_18_share_weights_but_not_the_function() -> None:
    torch.manual_seed(0)
    raw, activated = preact_resnet18().eval(), preact_resnet18(preactivated_shortcut=True).eval()
    activated.load_state_dict(raw.state_dict())
    x = images("preact-resnet-18")
    assert not torch.allclose(raw(x), activated(x), atol=1e-3)
    block, features = raw.layer2[0], torch.randn(1, 64, 4, 4)
    assert isinstance(block, PreActBlock)
    assert block.shortcut is not None
    nn.init.zeros_(block.conv2.weight)
    assert torch.equal(block(features), block.shortcut(features)), "fast_adversarial's shortcut reads the raw input"


def test_sub_block1_of_a_wide_resnet_adds_keys_and_changes_no_output() -> None:
    torch.manual_seed(0)
    plain, extra = WideResNet(10, 2).eval(), WideResNet(10, 2, sub_block1=True).eval()
    added = set(extra.state_dict()) - set(plain.state_dict())
    assert added == {key.replace("block1", "sub_block1") for key in plain.state_dict() if key.startswith("block1.")}
    plain.load_state_dict({key: value for key, value in extra.state_dict().items() if key not in added})
    x = images("wrn-10-2")
    assert torch.equal(plain(x), extra(x))


def test_a_residual_block_with_silent_convolutions_is_its_shortcut() -> None:
    model = WideResNet(16, 2)
    first, second = model.block2.eval().layer
    assert isinstance(first, WideBlock)
    assert isinstance(second, WideBlock)
    assert first.convShortcut is not None
    nn.init.zeros_(first.conv2.weight)
    nn.init.zeros_(second.conv2.weight)
    x = torch.randn(1, 32, 4, 4)
    out = first(x)
    assert torch.equal(out, first.convShortcut(first.bn1(x).relu())), "the shortcut reads the activated input"
    assert torch.equal(second(out), out)


def test_any_wide_resnet_is_built_by_its_name() -> None:
    model = build("wrn-22-2", 7)
    assert isinstance(model, WideResNet)
    assert len(model.block1.layer) == 3
    assert model.fc.weight.shape == (7, 128)
    assert find("wrn-22-2").input_shape == (3, 32, 32)
    assert find("wrn-34-10") is ARCHITECTURES["wrn-34-10"]


@pytest.mark.parametrize("name", ["wrn-32-10", "wrn-4-10", "wrn-5-1"])
def test_an_impossible_depth_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=rf"depth 6 n \+ 4 .* got depth {name.split('-')[1]}") as caught:
        build(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "nearest"), [("resnet18", "resnet-18"), ("wrn-2810", "wrn-28-10"), ("wrn-28-0", "wrn-28-10")]
)
def test_an_unknown_architecture_is_answered_with_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"unknown architecture '{name}'; did you mean '{nearest}'"):
        build(name)


def test_normalize_subtracts_the_mean_and_divides_by_the_std_of_each_channel() -> None:
    layer = Normalize((0.5, 0.25), (0.5, 0.125))
    x = torch.tensor([1.0, 0.5]).view(1, 2, 1, 1).expand(3, 2, 4, 4)
    assert torch.equal(layer(x), torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(3, 2, 4, 4))


def test_normalize_follows_the_model_but_stays_out_of_its_state_dict() -> None:
    model = nn.Sequential(Normalize((0.5,), (0.5,)), nn.Flatten())
    assert not model.state_dict()
    assert model(torch.rand(1, 1, 2, 2)).dtype == torch.float32
    assert model.double()(torch.rand(1, 1, 2, 2).double()).dtype == torch.float64


@pytest.mark.parametrize("std", [(0.5,), (0.5, 0.0), (0.5, -1.0), (0.5, float("nan"))])
def test_normalize_refuses_constants_that_do_not_fit(std: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="a std above 0 for every channel") as caught:
        Normalize((0.5, 0.5), std)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(10, 8), (9, 7)], ids=["even", "odd"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_halving_convolution_has_the_gradients_of_torchs(dtype: torch.dtype, size: tuple[int, int]) -> None:
    exact = dtype == torch.float64
    ours, theirs = HalvingConv2d(3, 5), nn.Conv2d(3, 5, kernel_size=4, stride=2, padding=1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    if exact:
        ours, theirs, x = ours.double(), theirs.double(), x.double()
    x.requires_grad_()

    def gradients(module: nn.Module) -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=not exact):
            loss = module(x).float().pow(3).sum() if not exact else module(x).pow(3).sum()
        first = torch.autograd.grad(loss, [x, *module.parameters()], create_graph=True)
        return [*first, *torch.autograd.grad(first[0].pow(2).sum(), [x, *module.parameters()])]

    for one, other in zip(gradients(ours), gradients(theirs), strict=True):
        assert (one - other).norm() <= (1e-12 if exact else 0.02) * other.norm()

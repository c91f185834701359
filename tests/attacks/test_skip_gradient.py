"""The skip gradient method: the same logits, and gradients as if residual branches were gamma times as steep."""

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchattack import SGM

from attacks import attack, mi_fgsm
from attacks.draws import Draws
from attacks.errors import InputError
from attacks.oracle import Oracle
from attacks.skip_gradient import residual_branches, skipping
from attacks.threat_model import ThreatModel
from model_zoo.architectures.preact_resnet import preact_resnet18
from model_zoo.architectures.resnet import BasicBlock, resnet18
from model_zoo.architectures.wide_resnet import WideResNet

NETWORKS: dict[
    str, tuple[Callable[[], nn.Module], int]
] = {  # and how many of its blocks have an identity as their shortcut
    "resnet-18": (lambda: resnet18(width=4), 5),
    "preact-resnet-18": (preact_resnet18, 5),
    "wrn-16-1": (lambda: WideResNet(16, 1), 4),
    "torchvision resnet-18": (lambda: torchvision.models.resnet18(num_classes=10), 5),
    "torchvision resnet-50": (lambda: torchvision.models.resnet50(num_classes=10), 12),
    "torchvision densenet-121": (lambda: torchvision.models.densenet121(num_classes=10), 58),
    "torchvision mobilenet-v2": (lambda: torchvision.models.mobilenet_v2(num_classes=10), 10),
    "timm densenet121": (lambda: timm.create_model("densenet121", num_classes=10), 58),
    "timm mobilenetv2": (lambda: timm.create_model("mobilenetv2_100", num_classes=10), 10),
}
"""Each with the number of its blocks whose shortcut is an identity."""


def frozen(model: nn.Module) -> nn.Module:
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_residual_branches_of_a_network_are_found(name: str) -> None:
    make, branches = NETWORKS[name]
    assert len(residual_branches(make())) == branches


def test_the_gradient_through_a_branch_is_gamma_times_and_the_logits_stay() -> None:
    torch.manual_seed(0)
    block = BasicBlock(3, 3, 1).double().eval()
    x = torch.rand(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    branch = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
    plain = torch.autograd.grad(block(x).sum(), x)[0]
    skip = (block(x) > 0).double().detach()  # the shortcut's own gradient: where the ReLU at the end is open
    (of_branch,) = torch.autograd.grad(branch, x, skip)
    assert torch.allclose(plain, skip + of_branch)
    with skipping(block, 0.3):
        assert torch.equal(block(x), (branch + x).relu())
        damped = torch.autograd.grad(block(x).sum(), x)[0]
    assert torch.allclose(damped, skip + 0.3 * of_branch)
    assert torch.equal(torch.autograd.grad(block(x).sum(), x)[0], plain)


@pytest.mark.filterwarnings("ignore:Using a non-full backward hook:FutureWarning")  # the reference's own
@pytest.mark.parametrize("network", ["resnet50", "densenet121"])
def test_the_iterates_are_those_of_torchattack(network: str) -> None:
    torch.manual_seed(0)
    model = frozen(getattr(torchvision.models, network)(num_classes=10))
    x = torch.rand(2, 3, 64, 64)
    y = model(x).argmax(1)
    epsilon, gamma = 8 / 255, 0.25
    reference = SGM(
        model, device=torch.device("cpu"), hook_cfg=network, eps=epsilon, steps=3, alpha=0.1 * epsilon, gamma=gamma
    )
    expected = reference(x, y).detach()
    for module in model.modules():  # it hangs its hooks in, and leaves them there
        module._backward_hooks.clear()
    oracle = Oracle(model, ThreatModel("Linf", epsilon))
    state = mi_fgsm.init(x, y, oracle.threat, Draws.start(0, torch.arange(2)))
    with skipping(model, gamma):
        for _ in range(3):
            state = mi_fgsm.step(oracle, state, rel_step_size=0.1, momentum=1.0)
    assert (state.x_adv - expected).abs().le(1e-6).float().mean() > 0.999


class BasicBlock2(nn.Module):
    """A block of that shape without a shortcut, or with that of released wide ResNets."""

    def __init__(self, shortcut: str = "") -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)
        self.kind = shortcut
        if shortcut:
            self.convShortcut = None if shortcut == "identity" else nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv2(self.bn2(self.conv1(self.bn1(x).relu())).relu())
        return out + x if self.kind else out


BasicBlock2.__name__ = "BasicBlock"


def test_a_block_of_released_wide_resnets_ends_in_its_convolution() -> None:
    blocks = BasicBlock2("identity"), BasicBlock2("convolution")
    assert residual_branches(nn.Sequential(*blocks)) == [blocks[0].conv2]


def test_blocks_without_shortcuts_are_refused() -> None:
    torch.manual_seed(0)
    model = frozen(nn.Sequential(BasicBlock2(), nn.Flatten(), nn.Linear(48, 3)))
    x = torch.rand(2, 3, 4, 4)
    with pytest.raises(InputError, match="expected residual blocks with shortcuts"):
        attack(model, x, model(x).argmax(1), "sgm", epsilon=0.1)


def test_a_network_without_residual_branches_is_refused_in_one_line() -> None:
    model = frozen(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)))
    x = torch.rand(2, 3, 2, 2)
    with pytest.raises(InputError, match="expected a network with residual blocks"):
        attack(model, x, model(x).argmax(1), "sgm", epsilon=0.1)


def test_the_attack_searches_by_the_skipped_gradient_and_leaves_no_hook() -> None:
    torch.manual_seed(0)
    model = frozen(resnet18(width=4))
    x = torch.rand(3, 3, 32, 32)
    y = model(x).argmax(1)
    plain, skipped = (attack(model, x, y, name, epsilon=1e-4) for name in ("mi-fgsm", "mi-sgm"))
    assert not torch.equal(plain.x_adv, skipped.x_adv)
    assert all(not module._forward_hooks for module in model.modules())

"""A graph that computes something else than its model, in whatever way, is refused."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.errors import InputError
from model_zoo.architectures.registry import build, find
from model_zoo.bounds.agreement import refuse_disagreement
from model_zoo.bounds.graph import graph


class Half(nn.Module):
    """A residual network, whose branch may be computed in another precision."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.branch = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(144, 3)
        self.lower: Callable[[], bool] = lambda: True
        self.answers_low = False

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.first(x))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.lower()):
            h = h + F.relu(self.branch(h))
            out: Tensor = self.last(h.flatten(1)) if self.answers_low else h
        return out if self.answers_low else self.last(out.flatten(1))


@pytest.mark.parametrize("answers_low", [False, True])
def test_a_pass_that_computes_in_another_precision_is_refused(answers_low: bool) -> None:
    torch.manual_seed(0)
    model, x = Half().eval(), torch.rand(5, 1, 6, 6)
    model.answers_low = answers_low
    found = graph(model, (1, 6, 6))
    with pytest.raises(InputError, match=r"expected a model that computes in float32.*, got bfloat16;") as error:
        refuse_disagreement(found, model, x)
    assert "\n" not in str(error.value)
    model.lower = lambda: False
    refuse_disagreement(found, model, x)


@pytest.mark.parametrize("share", [1e-4, 1.0])
def test_logits_beyond_the_noise_of_float32_are_refused(share: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    found, x = graph(model, (1, 6, 6)), torch.rand(5, 1, 6, 6)
    refuse_disagreement(found, model, x)
    model[3].register_forward_hook(lambda _module, _args, out: out + share * out[:1])
    with pytest.raises(InputError, match="expected logits that are those of the layers as they were traced") as error:
        refuse_disagreement(found, model, x)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["digits-cnn", "small-cnn", "resnet-18-w16", "wrn-10-1"])
def test_the_networks_of_the_zoo_agree_with_their_graphs(name: str) -> None:
    torch.manual_seed(0)
    model, shape = build(name).eval(), find(name).input_shape
    refuse_disagreement(graph(model, shape), model, torch.rand(3, *shape))


def test_in_a_deep_network_intervals_alone_would_not_tell() -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(12) for layer in (nn.Linear(64, 64), nn.LeakyReLU(0.5))]
    model = nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 3)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    found, x = graph(model, (1, 8, 8)), torch.rand(3, 1, 8, 8)
    refuse_disagreement(found, model, x)
    model[-1].register_forward_hook(lambda _module, _args, out: 1.01 * out)
    with pytest.raises(InputError, match="as they were traced"):
        refuse_disagreement(found, model, x)

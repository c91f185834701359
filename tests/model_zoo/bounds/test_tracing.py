"""What a traced graph does not show of a model is refused in one line; what it shows is what the model computes."""

import threading
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, remove_weight_norm, weight_norm

from attacks.errors import InputError
from attacks.models.normalisation import Normalize
from attacks.models.user_model import Quirks, UserModel
from model_zoo.bounds.graph import graph
from model_zoo.bounds.layers import layers
from model_zoo.bounds.tracing import changes_nothing


class Small(nn.Module):
    """Two convolutions and a linear layer, for images (N, 1, 6, 6); `between` is what lies between them."""

    def __init__(self, between: "Callable[[Small, Tensor], Tensor] | None" = None) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.bn, self.dropout = nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.relu, self.leaky = nn.ReLU(inplace=True), nn.LeakyReLU(0.1, inplace=True)
        self.row, self.last = nn.Linear(6, 6), nn.Linear(144, 3)
        self.between = between or relu_then_second

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.between(self, self.first(x)).flatten(1))
        return out


def relu_then_second(model: Small, h: Tensor) -> Tensor:
    out: Tensor = model.second(F.relu(h))
    return out


def added_in_place(model: Small, h: Tensor) -> Tensor:
    other = h
    other += model.second(h)
    return F.relu(other) + h


def overwritten_view(model: Small, h: Tensor) -> Tensor:
    seen = model.dropout(h)
    out: Tensor = model.second(model.relu(h)) + seen
    return out


OVERWRITING: dict[str, Callable[[Small, Tensor], Tensor]] = {
    "module": lambda model, h: model.second(model.relu(h)) + h,
    "leaky module": lambda model, h: model.second(model.leaky(h)) + h,
    "function": lambda model, h: model.second(F.relu(h, inplace=True)) + h,
    "leaky function": lambda model, h: model.second(F.leaky_relu(h, 0.1, True)) + h,
    "+=": added_in_place,
    "add_": lambda model, h: F.relu(h.add_(model.second(h))) + h,
    "another name": overwritten_view,
}


@pytest.mark.parametrize("name", OVERWRITING)
def test_what_reads_a_tensor_after_it_was_overwritten_is_named(name: str) -> None:
    with pytest.raises(InputError, match=r"works in place, and add.* reads after it what it overwrote") as error:
        graph(Small(OVERWRITING[name]).eval(), (1, 6, 6))
    assert "\n" not in str(error.value)


SAME: dict[str, Callable[[Small, Tensor], Tensor]] = {
    "in place, and no other reader": lambda model, h: model.second(model.relu(model.bn(h))),
    "in place, and read before": lambda model, h: model.relu(h.add_(model.second(h))),
    "in place, and read as what it is now": lambda model, h: model.second(F.relu(h, inplace=True).relu()),
    "max_pool2d": lambda _, h: F.max_pool2d(h, 3, stride=1, padding=1),
    "view": lambda _, h: F.relu(h).view(h.size(0), -1),
    "reshape": lambda _, h: F.relu(h).reshape(h.shape[0], -1),
    "view by the first size": lambda _, h: h.view(h.size()[0], -1).relu(),
    "flatten by names": lambda _, h: torch.flatten(F.relu(h), start_dim=1),
}


@pytest.mark.parametrize("name", SAME)
def test_steps_that_are_written_otherwise_compute_the_same(name: str) -> None:
    torch.manual_seed(0)
    model, x = Small(SAME[name]).eval().double(), torch.rand(4, 1, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(graph(model, (1, 6, 6)).outputs(x.clone())[-1], model(x))


def test_a_chain_may_pool_and_view_by_functions_too() -> None:
    torch.manual_seed(0)

    def pooled(_: Small, h: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(h), 3, stride=1, padding=1)
        return h.view(h.size(0), -1)

    model, x = Small(pooled).eval(), torch.rand(4, 1, 6, 6)
    out = x
    for layer in layers(model):
        out = layer(out)
    torch.testing.assert_close(out, model(x))


def with_hook(model: Small) -> None:
    model.second.register_forward_hook(lambda _module, _args, out: -out)


def with_pre_hook(model: Small) -> None:
    model.second.register_forward_pre_hook(lambda _module, args: (-args[0],))


def with_hook_of_its_own(model: Small) -> None:
    model.register_forward_hook(lambda _module, _args, out: -out)


def with_another_forward(model: Small) -> None:
    before = model.last.forward
    model.last.forward = lambda v: -before(v)  # type: ignore[method-assign, assignment]


def with_weight_norm(model: Small) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the hook that is refused is a deprecated one
        weight_norm(model.second)


def with_lock(model: Small) -> None:
    model.lock = threading.Lock()  # type: ignore[assignment]


CHANGED: dict[str, tuple[Callable[[Small], object], str]] = {
    "hook": (with_hook, "layer second cannot be bounded: it has forward hooks"),
    "pre-hook": (with_pre_hook, "layer second cannot be bounded: it has forward hooks"),
    "hook of the model": (with_hook_of_its_own, "the model, a Small, cannot be bounded: it has forward hooks"),
    "forward": (with_another_forward, "layer last cannot be bounded: its forward was replaced"),
    "weight_norm": (with_weight_norm, "layer second .* a hook computes its weight; call .*remove_weight_norm first"),
    "pruning": (lambda model: prune.l1_unstructured(model.second, "weight", 5), "call torch.nn.utils.prune.remove"),
    "parametrization": (lambda model: parametrizations.weight_norm(model.second), "parametrize.remove_parametrization"),
    "lock": (with_lock, "expected a model that can be copied, got one that cannot .*lock"),
    "batch norm in training mode": (lambda model: model.bn.train(), "layer bn cannot be bounded: it is kept in train"),
    "dropout in training mode": (lambda model: model.dropout.train(), "layer dropout cannot .* kept in training mode"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_a_module_does_beside_its_class_is_named(name: str) -> None:
    change, complaint = CHANGED[name]
    model = Small(lambda model, h: model.dropout(F.relu(model.second(model.bn(h))))).eval()
    change(model)
    with pytest.raises(InputError, match=complaint) as error:
        graph(model, (1, 6, 6))
    assert "\n" not in str(error.value)


def test_without_the_hook_of_weight_norm_the_network_is_bounded() -> None:
    model, x = Small().eval(), torch.rand(2, 1, 6, 6)
    with_weight_norm(model)
    logits = model(x)
    remove_weight_norm(model.second)
    torch.testing.assert_close(graph(model, (1, 6, 6)).outputs(x.double())[-1].float(), logits)


class TwoInputs(Small):
    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        if extra is not None:
            x = x + extra
        return super().forward(x)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (TwoInputs(), "layer extra cannot be bounded: it is an input beside the images"),
        (Small(lambda model, h: model.row(h)), r"known for Linear on what has the shape \(4, 6, 6\)"),
        (nn.Sequential(nn.Flatten(), Normalize((0.5,), (0.5,)), nn.Linear(36, 3)), "known for Normalize on what has"),
        (Small(lambda _, h: h.mean((2, 3), dtype=torch.float32)), "no bound is known for mean"),
        (
            nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(36, 3)),
            "layer _0 cannot be bounded: it has no running statistics",
        ),
    ],
    ids=["two inputs", "linear", "normalisation", "mean in another precision", "a batch of its own"],
)
def test_what_a_bound_would_take_for_something_else_is_named(model: nn.Module, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as error:
        graph(model.eval(), (1, 6, 6))
    assert "\n" not in str(error.value)


def test_how_a_users_model_is_run_is_said_in_words() -> None:
    with pytest.raises(InputError, match="got a model that returns its logits as logits and keeps something from pass"):
        graph(UserModel(Small().eval(), Quirks(output="logits", keeps_state=True)), (1, 6, 6))
    inner = TwoInputs().eval()  # which is called with images alone
    x = torch.rand(2, 1, 6, 6)
    torch.testing.assert_close(graph(UserModel(inner, Quirks()), (1, 6, 6)).outputs(x.double())[-1].float(), inner(x))


def test_a_hook_that_looks_on_is_none() -> None:
    model = Small().eval()
    model.register_forward_hook(changes_nothing(lambda *_: None))
    graph(model, (1, 6, 6))
    model.register_forward_hook(lambda *_: None)
    with pytest.raises(InputError, match="has forward hooks"):
        graph(model, (1, 6, 6))

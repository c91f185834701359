"""Models as other people write them, all with the weights of the digits suite's `madry`: right answers, odd manners."""

import dataclasses
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model_zoo.architectures.digits_cnn import DigitsCNN
from model_zoo.weights.checkpoint import load_state_dict

WEIGHTS = Path(__file__).resolve().parents[3] / "model_zoo/checkpoints/digits/madry.safetensors"


def plain() -> nn.Module:
    model = DigitsCNN()
    model.load_state_dict(load_state_dict(WEIGHTS))
    return model


class Around(nn.Module):
    """Hands the images on, and the logits back."""

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        self.model: Any = plain() if model is None else model

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


class Squeezing(Around):
    def forward(self, x: Tensor) -> Any:
        return self.model(x).unsqueeze(2).squeeze()


class Norm1d(Around):
    """A batch norm that is left in train mode, behind logits that it hardly changes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(10)

    def train(self, _mode: bool = True) -> "Norm1d":
        super().train(False)
        self.norm.train()
        return self

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        normed: Tensor = self.norm(logits)
        return logits + 0 * normed


class Fixed(Around):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Any:
        return self.model(x.reshape(self.size, 1, 8, 8))


class Viewing(Around):
    """Flattens by view, which fails where the weights are laid out channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.model.conv1(x))
        x = torch.relu(self.model.conv2(x))
        x = x.view(len(x), -1)
        logits: Tensor = self.model.fc2(torch.relu(self.model.fc1(x)))
        return logits


class ExtraState(Around):
    def get_extra_state(self) -> dict[str, Any]:
        return {"version": 3, "names": ("zero", "one"), "scale": torch.ones(2)}

    def set_extra_state(self, state: Any) -> None:
        pass


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.LazyConv2d(32, 3, padding=1)
        self.conv2 = nn.LazyConv2d(64, 3, stride=2, padding=1)
        self.fc1 = nn.LazyLinear(64)
        self.fc2 = nn.LazyLinear(10)
        self.act1, self.act2, self.act3 = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return DigitsCNN.forward(self, x)  # type: ignore[arg-type]


class Reentrant(Around):
    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.model, x, use_reentrant=True)


class Spiking(Around):
    """Adds a leaking sum of what it was asked before, which has the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.membrane: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        self.membrane = logits if self.membrane is None else 0.9 * self.membrane + logits
        return self.membrane


class Counting(Around):
    """Answers otherwise from its hundredth call on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.model(x)
        return logits if self.calls < 100 else -logits


class Adapting(Around):
    """Moves its own weights at every pass."""

    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            self.model.fc2.bias.add_(x.mean())
        return self.model(x)


class Remembering(Around):
    """Keeps its state where no copy of the module reaches."""

    seen: list[Tensor] = []  # noqa: RUF012 (that is the point)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().mean())
        logits: Tensor = self.model(x)
        return logits + torch.stack(self.seen[:-1] or [torch.zeros(())]).sum()


class Numpy(Around):
    """A remote model: arrays in, arrays out."""

    def forward(self, x: Tensor) -> Any:
        return self.model(torch.from_numpy(x.numpy().copy())).numpy()


class NoGrad(Around):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Any:
        return self.model(x)


class Inference(Around):
    def forward(self, x: Tensor) -> Any:
        with torch.inference_mode():
            return self.model(x)


class InPlace(Around):
    def forward(self, x: Tensor) -> Any:
        return self.model(x.mul_(2).sub_(1).add_(1).div_(2))


class OwnGenerator(Around):
    """Draws from a generator of its own, what changes no class."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits + 1e-3 * float(self.numbers.random())


@dataclasses.dataclass
class Output:
    logits: Tensor
    features: Tensor


Pair = namedtuple("Pair", ("features", "scores"))


class Returning(Around):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        logits = self.model(x)
        makers: dict[str, Any] = {
            "tuple": lambda: (x, logits),
            "dict": lambda: OrderedDict(loss=None, logits=logits),
            "dataclass": lambda: Output(logits, x),
            "namedtuple": lambda: Pair(x, logits),
        }
        return makers[self.kind]()


class RaisingForwards(Around):
    """Refuses digits under attack: their dark background is not as dark as before."""

    def forward(self, x: Tensor) -> Any:
        if 0.02 < (x == 0).float().mean() < 0.35:
            raise ArithmeticError("no photograph\nand more lines")
        return self.model(x)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: Any, *_gradients: Any) -> Any:
        raise LookupError("no way back")


class RaisingBackwards(Around):
    def forward(self, x: Tensor) -> Any:
        return self.model(_Backward.apply(x))


class _BackwardOfFew(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.is_attacked = bool(0.02 < (x == 0).float().mean() < 0.35)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        if ctx.is_attacked:
            raise LookupError("no way back")
        return gradients[0]


class FailingLater(Around):
    """Has no gradient at digits under attack."""

    def forward(self, x: Tensor) -> Any:
        return self.model(_BackwardOfFew.apply(x))


class Blind(Around):
    def forward(self, _x: Tensor) -> Any:
        raise KeyError("weights of layer 7")


class Clamping(Around):
    """Identity on images, but its gradient is zero at pixels of exactly 0 and 1."""

    def forward(self, x: Tensor) -> Any:
        return self.model(nn.functional.hardtanh(x, 0, 1))


def clamping() -> nn.Module:
    return Clamping()


def clamping_doubles() -> nn.Module:
    return Clamping(plain()).double()


def squeezing() -> nn.Module:
    return Squeezing()


def norm1d() -> nn.Module:
    return Norm1d()


def fixed64() -> nn.Module:
    return Fixed(64)


def fixed1() -> nn.Module:
    return Fixed(1)


def exported() -> nn.Module:
    program = torch.export.export(plain().eval(), (torch.zeros(24, 1, 8, 8),))
    return Around(program.module())


def scripted() -> nn.Module:
    model: nn.Module = torch.jit.script(plain())
    return model


def traced() -> nn.Module:
    model: nn.Module = torch.jit.trace(plain().eval(), torch.zeros(2, 1, 8, 8))
    return model


def compiled() -> nn.Module:
    return torch.compile(plain())  # type: ignore[return-value]


def viewing() -> nn.Module:
    return Viewing()


def extra_state() -> nn.Module:
    return ExtraState()


def quantised() -> nn.Module:
    model: nn.Module = torch.ao.quantization.quantize_dynamic(plain().eval(), {nn.Linear})
    return model


def lazy() -> nn.Module:
    return Lazy()


def lazy_loaded() -> nn.Module:
    model = Lazy()
    model.load_state_dict(load_state_dict(WEIGHTS))
    return model


def double() -> nn.Module:
    return plain().double()


def reentrant() -> nn.Module:
    return Reentrant()


def spiking() -> nn.Module:
    return Spiking()


def counting() -> nn.Module:
    return Counting()


def adapting() -> nn.Module:
    return Adapting()


def remembering() -> nn.Module:
    return Remembering()


def arrays() -> nn.Module:
    return Numpy()


def no_grad() -> nn.Module:
    return NoGrad()


def inference() -> nn.Module:
    return Inference()


def in_place() -> nn.Module:
    return InPlace()


def own_generator() -> nn.Module:
    return OwnGenerator()


def returns_tuple() -> nn.Module:
    return Returning("tuple")


def returns_dict() -> nn.Module:
    return Returning("dict")


def returns_dataclass() -> nn.Module:
    return Returning("dataclass")


def returns_namedtuple() -> nn.Module:
    return Returning("namedtuple")


def raising_forwards() -> nn.Module:
    return RaisingForwards()


def raising_backwards() -> nn.Module:
    return RaisingBackwards()


def fails_later() -> nn.Module:
    return FailingLater()


def blind() -> nn.Module:
    return Blind()


class ForgettingAtANewSize(Around):
    """Adds what it was asked last, unless that had another size."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        before, self.last = self.last, logits.detach()
        return logits if before is None or len(before) != len(logits) else logits - before


class RefusingNoise(Around):
    """Takes digits alone: images that are bright in the middle and dark at the edge."""

    def forward(self, x: Tensor) -> Any:
        assert x[..., 3:5].mean() > x[..., 0].mean() + 0.2, "no digit"
        return self.model(x)


def forgetting() -> nn.Module:
    return ForgettingAtANewSize()


def refusing_noise() -> nn.Module:
    return RefusingNoise()


class Noisy(Around):
    def forward(self, x: Tensor) -> Any:
        return self.model(x + 0.2 * torch.randn_like(x))


def noisy() -> nn.Module:
    return Noisy()


class Noise:
    """A transform with a generator of its own."""

    def __init__(self) -> None:
        self.numbers = np.random.default_rng(0)

    def __call__(self, x: Tensor) -> Tensor:
        return x + 0.2 * torch.from_numpy(self.numbers.standard_normal(x.shape)).float()


class Transforming(Around):
    """Draws where no attribute of the module is a generator."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held

    def forward(self, x: Tensor) -> Any:
        part = self.held[0] if isinstance(self.held, list) else self.held
        return self.model(part(x))


class Salting(Around):
    """Brightens black pixels of the image itself, behind autograd's back."""

    def forward(self, x: Tensor) -> Any:
        x.data[x.data == 0] = 0.3
        return self.model(x)


class Salted(Around):
    """The same without touching the image."""

    def forward(self, x: Tensor) -> Any:
        return self.model(torch.where(x == 0, x + 0.3, x))


class CountingInAList(Around):
    """Turns its logits round at every seventh call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(1)
        logits: Tensor = self.model(x)
        return logits.flip(1) if len(self.calls) % 7 == 0 else logits


class Caching(Around):
    """Keeps something for each size of a batch, which changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.zeros: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        zeros = self.zeros.setdefault(len(x), torch.zeros(len(x), 10))
        logits: Tensor = self.model(x)
        return logits + zeros


class Sparse(Around):
    """Holds a sparse buffer, and returns sparse logits."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.eye(3).to_sparse())

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits.to_sparse()


def noise_in_an_object() -> nn.Module:
    return Transforming(Noise())


def noise_in_a_list() -> nn.Module:
    return Transforming([Noise()])


def salting() -> nn.Module:
    return Salting()


def salted() -> nn.Module:
    return Salted()


def counting_in_a_list() -> nn.Module:
    return CountingInAList()


def caching() -> nn.Module:
    return Caching()


def sparse() -> nn.Module:
    return Sparse()


def returns_nested() -> nn.Module:
    class Nested(Around):
        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"out": {"logits": self.model(x), "features": x}}

    return Nested()

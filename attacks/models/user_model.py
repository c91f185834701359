"""A user's own model as all passes of ours need it: images in batches of any size in, logits out, or one line."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from attacks.errors import InputError, one_line
from attacks.models.modes import device_of, moved
from attacks.models.normalisation import Normalisation
from attacks.models.own_generators import seed_own_generators
from attacks.out_of_memory import is_out_of_memory


class ModelError(InputError):
    """What a user's own model raised, in one line."""


class OutputError(InputError):
    """A model returns something else than logits, and nobody said where in it they are."""


@dataclass(frozen=True)
class Quirks:
    """How a user's model must be run; the defaults are for a model that can be run in any way.

    Args:
        output: where in what it returns the logits are: a key, an attribute or an index; "" where it returns them.
        normalisation: what its images are normalised by in front of it; None where they are left as they are.
        dtype: what the images are cast to, such as "float64"; "" for nothing.
        batch: how many images a pass must have; 0 for any number. What lacks is filled up by copies of the last one.
        fewest: how many images it must have at least.
        is_contiguous: whether its weights must not be laid out channels_last.
        keeps_state: whether a pass changes later ones, so that each must be made by a fresh copy of it.
        has_generators: whether it draws from generators of its own, which are then seeded by torch's at each pass.
        is_compiled: whether it is compiled, which batches of many sizes would have done again and again.
        unwraps_checkpointing: whether it recomputes activations by reentrant gradient checkpointing, which allows no
            gradient with respect to the images alone: they are kept instead.
        returns_arrays: whether it returns what is no dense floating-point tensor that autograd may use.
        is_flat_at_bounds: whether it has no gradient at pixels of exactly 0 or 1, and has one beside them, as behind a
            clamp to [0, 1] (whose gradient at its bounds is zero in some versions of torch). Images are then moved
            inside by a rounding error where a gradient is taken, and nowhere else.
    """

    output: str = ""
    normalisation: Normalisation | None = None
    dtype: str = ""
    batch: int = 0
    fewest: int = 1
    is_contiguous: bool = False
    keeps_state: bool = False
    has_generators: bool = False
    is_compiled: bool = False
    unwraps_checkpointing: bool = False
    returns_arrays: bool = False
    is_flat_at_bounds: bool = False


class UserModel(nn.Module):
    """A user's own model, run as its quirks demand.

    Args:
        model: in the mode in which it is attacked.
        quirks: as `attacks/models/quirks.py` finds them.

    Whatever its forward pass raises becomes a ModelError; want of memory stays what it is.
    """

    def __init__(self, model: nn.Module, quirks: Quirks) -> None:
        super().__init__()
        self.model = model
        self.quirks = quirks
        self.training = False  # of this wrapper alone
        self.normalize: nn.Module = nn.Identity().eval()
        if quirks.normalisation is not None:
            self.normalize = quirks.normalisation.layer().eval().to(device_of(model))
        plain = replace(quirks, normalisation=None, is_flat_at_bounds=False)
        self._is_plain = plain in (Quirks(), Quirks(is_contiguous=True))

    def to(self, *args: Any, **kwargs: Any) -> "UserModel":
        """The user's own `to` may move what is no parameter; it may lack a return value, or some of the arguments."""
        self.model = moved(self.model, *args, **kwargs)
        self.normalize.to(*args, **kwargs)
        return self

    def in_one_copy(self) -> "UserModel":
        """The same by a copy that keeps its state, where each pass would be made by a copy of its own."""
        if not self.quirks.keeps_state:
            return self
        return UserModel(copy.deepcopy(self.model), replace(self.quirks, keeps_state=False))

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the user's model, by its own names."""
        return self.model.state_dict(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits of images (N, C, H, W), of which the model gets a copy: it may change its input."""
        x = x.clone(memory_format=torch.contiguous_format)
        if self.quirks.is_flat_at_bounds and x.requires_grad:
            inside = max(torch.finfo(t).eps for t in (x.dtype, getattr(torch, self.quirks.dtype or "float32")))
            x = (1 - 2 * inside) * x + inside
        x = self.normalize(x)
        if self._is_plain:
            answer: Tensor = self._ask(self.model, x)
            return answer
        quirks = self.quirks
        parts = x.split(quirks.batch) if quirks.batch else (x,)
        return torch.cat([self._logits(_filled(part, quirks.batch or quirks.fewest))[: len(part)] for part in parts])

    def _logits(self, x: Tensor) -> Tensor:
        quirks = self.quirks
        if quirks.dtype:
            x = x.to(getattr(torch, quirks.dtype))
        model = copy.deepcopy(self.model) if quirks.keeps_state else self.model
        if quirks.has_generators:
            seed_own_generators(model)
        with ExitStack() as stack:
            if quirks.is_compiled:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            if quirks.unwraps_checkpointing:
                stack.enter_context(_without_checkpoints())
            output = self._ask(model, x)
        logits = _selected(output, quirks.output)
        if isinstance(logits, np.ndarray):
            logits = torch.from_numpy(logits)
        if not isinstance(logits, Tensor):
            chosen = f"output {quirks.output}: " if quirks.output else ""
            raise OutputError(f"{chosen}expected logits, got {_described(logits)}; {_remedy(logits, quirks.output)}")
        if logits.is_nested:
            raise OutputError("expected logits, got a nested tensor; have the model return a tensor (N, classes)")
        if logits.is_quantized:
            logits = logits.dequantize()
        if logits.layout != torch.strided:
            logits = logits.to_dense()
        return (logits.clone() if logits.is_inference() else logits).to(x.device).float()

    def _ask(self, model: nn.Module, x: Tensor) -> Any:
        try:
            return model(x)
        except (Exception, SystemExit) as error:  # the user's own code may raise what it likes
            if is_out_of_memory(error):
                raise
            raise ModelError(f"the model raised {one_line(error)}") from error


def _filled(x: Tensor, size: int) -> Tensor:
    missing = size - len(x)
    return torch.cat([x, x[-1:].detach().expand(missing, *x.shape[1:])]) if missing > 0 else x


@contextmanager
def _without_checkpoints() -> Iterator[None]:
    """Have reentrant checkpoints run their function as if they were none: as fast, and hungrier for memory."""

    class Direct:
        @staticmethod
        def apply(function: Any, _keeps_draws: bool, *args: Any) -> Any:
            return function(*args)

    reentrant = checkpoint.CheckpointFunction
    checkpoint.CheckpointFunction = Direct  # type: ignore[misc, assignment]  # no option of torch's switches them off
    try:
        yield
    finally:
        checkpoint.CheckpointFunction = reentrant  # type: ignore[misc]


def _selected(output: Any, place: str, inside: str = "") -> Any:
    """The part of a model's output at a key, attribute or index, or at several with dots between; all of it at "".

    Args:
        inside: where in what the model returns the output stands.
    """
    if not place:
        return output
    if isinstance(output, Tensor):
        raise OutputError(f"output {place}: expected a part of what the model returns, got its logits; leave it out")
    first, _, rest = (place, "", "") if isinstance(output, Mapping) and place in output else place.partition(".")
    try:
        if first.isdecimal() and not (isinstance(output, Mapping) and first in output):
            part = (list(output.values()) if isinstance(output, Mapping) else output)[int(first)]
        else:
            part = output[first] if isinstance(output, Mapping) else getattr(output, first)
    except (LookupError, AttributeError, TypeError):
        asked = _below(inside, place)
        raise OutputError(
            f"output {asked}: expected a part of {_described(output)}; {_remedy(output, inside)}"
        ) from None
    return _selected(part, rest, _below(inside, first))


def _below(place: str, name: str) -> str:
    """What a part is called from the outside, that has a name at a place."""
    return f"{place}.{name}" if place else name


def _names(output: Any) -> list[str]:
    """What the parts of a model's output are called; an index where they have no names."""
    if isinstance(output, Mapping):
        return [str(key) for key in output]
    if isinstance(output, (tuple, list)):
        return list(getattr(output, "_fields", map(str, range(len(output)))))
    if is_dataclass(output):
        return [field.name for field in fields(output)]
    return [name for name in ("logits",) if hasattr(output, name)]


def _described(output: Any) -> str:
    names = _names(output)
    return f"a {type(output).__name__}" + (f" of {', '.join(names[:8])}" if names else "")


def _remedy(output: Any, place: str = "") -> str:
    """What to do, of a part of what a model returns that has no logits, and where it is."""
    names = [_below(place, name) for name in _names(output)]
    if not names:
        return "have the model return its logits, a tensor (N, classes)"
    called_so = [name for name in names if name.rpartition(".")[2] == "logits"]
    part = called_so[0] if called_so else " or ".join(names[:4])
    return f"say which part they are by --output {part}, in Python by output="

"""What a user's own model can be asked, and how: found by a few trial passes of copies of it, before any number."""

import copy
import itertools
import re
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from inspect import getattr_static

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from attacks.errors import InputError
from attacks.generators import seeded
from attacks.models.normalisation import Normalisation, require_none_inside
from attacks.models.own_generators import own_generators
from attacks.models.reach import reachable
from attacks.models.user_model import ModelError, OutputError, Quirks, UserModel
from attacks.out_of_memory import is_out_of_memory
from attacks.randomness import differ
from attacks.trial_size import trial_size

BATCHES = (4, 10, 16, 20, 25, 32, 40, 50, 64, 100, 125, 128, 200, 250, 256, 500, 512, 1000, 1024)
"""Fixed batches that are tried, beside those that the model's own messages name."""
FEW = 3
"""Images that most of it takes of a model that takes any number: a large one answers slowly."""
SAME_LAYOUT = 1e-3
"""The largest relative difference that counts as rounding where weights in another memory layout meet other kernels."""


@torch.no_grad()
def find_quirks(
    model: nn.Module,
    x: Tensor,
    output: str = "",
    *,
    normalisation: Normalisation | None = None,
    tries_layouts: bool = True,
) -> Quirks:
    """How a model must be run.

    Args:
        model: in the mode in which it is attacked. Copies of it are run, unless it cannot be copied.
        x: (8, C, H, W) images, on its device.
        output: where in what it returns the logits are; "" where it returns them.
        normalisation: what its images are normalised by in front of it; None for nothing.
        tries_layouts: whether its weights may be laid out otherwise than they are.

    Returns: its quirks; those of any model where it takes the images in no way, which the checks before a run report.
    Raises: InputError where it returns no logits, where it normalises by itself what is normalised in front of it, and
        where its answers depend on those before in a way that cannot be undone.
    """
    if normalisation is not None:
        require_none_inside(model, x.shape[1])
    if any(isinstance(module, LazyModuleMixin) for module in model.modules()):
        with suppress(ModelError):
            _answers(model, Quirks(output, normalisation), x)  # such layers become others at their first pass
    start = Quirks(
        output,
        normalisation,
        is_compiled=_is_compiled(model),
        has_generators=any(True for _ in own_generators(model)),
    )
    quirks = _that_fit(model, start, x)
    if quirks is None or _failure(model, quirks, x, demands_finite=True):
        return start
    few = x if quirks.batch else x[:FEW]
    shown = few if normalisation is None else normalisation.layer().to(x.device)(few)
    quirks = replace(quirks, returns_arrays=quirks == Quirks("", normalisation) and not _returns_tensor(model, shown))
    quirks = replace(quirks, keeps_state=_keeps_state(model, quirks, few))
    edges = x if quirks.batch else x[:: -(-len(x) // trial_size(x, len(x)))]  # pixels of both 0 and 1 among them
    gradient = _gradient(model, quirks, edges)
    if gradient is None:
        without = replace(quirks, unwraps_checkpointing=True)
        gradient = _gradient(model, without, edges)
        quirks = quirks if gradient is None else without
    if gradient is not None:
        quirks = replace(quirks, is_flat_at_bounds=_is_flat_at_bounds(model, quirks, edges, gradient))
    has_gradient = gradient is not None
    return replace(quirks, is_contiguous=tries_layouts and _must_be_contiguous(model, quirks, few, has_gradient))


def _that_fit(model: nn.Module, start: Quirks, x: Tensor) -> Quirks | None:
    """The type and number of images that a pass takes; None where none was found."""
    ways = [start, *(replace(start, dtype=name) for name in _other_types(model))]
    said = []
    for way in ways:
        many, two, one = (_failure(model, way, x[:size]) for size in (len(x), 2, 1))
        if not (many or two):
            return replace(way, fewest=2) if one else way
        if not (many and two and one):
            return replace(way, batch=next(n for n, failed in ((len(x), many), (2, two), (1, one)) if not failed))
        said.append(many)
    named = {int(number) for number in re.findall(r"\b[0-9]{1,4}\b", " ".join(said))} - {0, 1, 2, len(x)}
    for way in ways:
        for size in (*sorted(named), *(size for size in BATCHES if size not in named)):
            if not _failure(model, replace(way, batch=size), x):
                return replace(way, batch=size)
    return None


def _other_types(model: nn.Module) -> list[str]:
    """Names of the floating-point types of its weights, but for float32."""
    tensors = [*model.parameters(), *model.buffers()]
    found = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors if tensor.is_floating_point()}
    return sorted(found - {"float32"})


def _failure(model: nn.Module, quirks: Quirks, x: Tensor, *, demands_finite: bool = False) -> str:
    """What goes wrong where a fresh copy of the model is asked; "" where nothing does."""
    try:
        logits = _answers(_copied(model), quirks, x)
    except OutputError:
        raise
    except InputError as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return "out of memory"
    if demands_finite and not logits.isfinite().all():
        return "its logits are not finite"
    has_a_row_an_image = logits.ndim > 1 and len(logits) == len(x)
    return "" if has_a_row_an_image else f"it returns a tensor of shape {tuple(logits.shape)}"


def _answers(model: nn.Module, quirks: Quirks, x: Tensor) -> Tensor:
    with seeded("trial"):
        logits: Tensor = UserModel(model, replace(quirks, returns_arrays=True))(x)
    return logits


def _copied(model: nn.Module) -> nn.Module:
    """A copy, or the model itself where it holds what cannot be copied."""
    try:
        return copy.deepcopy(model)
    except Exception:  # the user's own code may raise what it likes
        return model


def _is_compiled(model: nn.Module) -> bool:
    if "torch._dynamo" not in sys.modules:  # compiling imports it, which takes seconds
        return False
    return any(
        isinstance(module, torch._dynamo.OptimizedModule)
        or getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(getattr_static(module, "forward", None), "_torchdynamo_orig_callable")
        for module in model.modules()
    )


def _returns_tensor(model: nn.Module, x: Tensor) -> bool:
    """Whether a model returns a dense tensor of floating-point numbers that operations may be applied to."""
    with seeded("trial"):
        output = _copied(model)(x.clone())
    if not isinstance(output, Tensor) or output.is_inference() or output.is_quantized or output.is_nested:
        return False
    return output.is_floating_point() and output.layout == torch.strided


def _keeps_state(model: nn.Module, quirks: Quirks, x: Tensor) -> bool:
    """Whether a pass changes later ones, all generators seeded alike.

    Raises: InputError where nothing undoes it, and where the model has been asked before and still holds of it.
    """
    first = _answers(_copied(model), quirks, x)
    used = _copied(model)
    turns = (x, x, x.flip(0), x[:1], x)  # some forget at another size
    try:
        asked = [_answers(used, quirks, images) for images in turns]
        counted = _counters(used)  # by now what is kept once for each size of a batch is there
        asked += [_answers(used, quirks, images) for images in turns]
        counts = _counters(used) != counted
    except ModelError:
        asked = []
    own = [answer for answer, images in zip(asked, 2 * turns, strict=False) if images is x]
    if own and not any(differ(answer, first) for answer in own) and not counts:
        return False
    if used is model or differ(_answers(_copied(model), quirks, x), first):
        raise InputError(
            "expected the same answers to the same images under the same seeds of torch, NumPy and Python, got others: "
            "it keeps state between calls, or draws from a generator, where no copy of the module reaches; hold these "
            "as attributes of the module, or reset them in forward"
        )
    if left := _state_left(model, quirks, x):
        raise InputError(
            f"it keeps state between calls, and holds some of a call before in {left!r}: expected one as before its "
            "first image; reset it, or hand over a new one"
        )
    return True


def _state_left(model: nn.Module, quirks: Quirks, x: Tensor) -> str:
    """The name of a tensor that a batch left in a model: one of the batch's size; "" where there is none."""
    before = {name: tensor.shape for name, tensor in _held(model) if tensor.ndim and tensor.any()}
    used = _copied(model)
    try:
        _answers(used, replace(quirks, batch=0), x[:3])
    except ModelError:  # of another batch than this, or of a fixed one
        return next(iter(before), "")
    return next((name for name, tensor in _held(used) if name in before and tensor.shape != before[name]), "")


def _held(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors among the attributes of a model and its parts that are neither parameters nor buffers."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            values = value if isinstance(value, (list, tuple)) else [value]
            yield from ((f"{name}.{key}".lstrip("."), tensor) for tensor in values if isinstance(tensor, Tensor))


def _counters(model: nn.Module) -> list[str]:
    """What a model reaches that may count its calls: numbers, counters, the lengths of what it keeps, and tensors."""
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    found = []
    for value in reachable(model):
        if isinstance(value, Tensor) and id(value) not in own:
            found.append(f"tensor {tuple(value.shape)} {float(value.detach().double().sum())}")
        elif isinstance(value, (bool, int, float, itertools.count)):
            found.append(repr(value))
        elif isinstance(value, (list, tuple, set, dict, deque)):
            found.append(f"{type(value).__name__} {len(value)}")
    return found


def _is_flat_at_bounds(model: nn.Module, quirks: Quirks, x: Tensor, here: Tensor) -> bool:
    """Whether no pixel of exactly 0, or none of exactly 1, has a gradient, and some have one just inside.

    Args:
        here: (N, C, H, W) the gradient at the images x.
    """
    if not here[(x > 0) & (x < 1)].any():
        return False
    flat = [at for at in (x == 0, x == 1) if at.any() and not here[at].any()]
    inside = _gradient(model, replace(quirks, is_flat_at_bounds=True), x) if flat else None
    return inside is not None and any(bool(inside[at].any()) for at in flat)


def _gradient(model: nn.Module, quirks: Quirks, x: Tensor) -> Tensor | None:
    """Of its logits, weighted so that they do not add up to a constant, at images (N, C, H, W); None where it has none.

    Raises: nothing that the user's own code raises.
    """
    with torch.enable_grad(), seeded("trial"):
        x = x.clone().requires_grad_()
        try:
            logits = UserModel(_copied(model), quirks)(x)
            weights = torch.arange(1, logits.shape[1] + 1, device=x.device, dtype=logits.dtype)
            return torch.autograd.grad((logits * weights).sum(), x)[0]
        except Exception:  # the user's own code may raise what it likes
            return None


def _must_be_contiguous(model: nn.Module, quirks: Quirks, x: Tensor, has_gradient: bool) -> bool:
    """Whether it goes wrong, answers otherwise, or loses its gradient, with its weights laid out channels_last."""
    if not any(tensor.ndim == 4 for tensor in (*model.parameters(), *model.buffers())):
        return False
    laid_out = _copied(model)
    if laid_out is model:
        return True
    UserModel(laid_out, quirks).to(memory_format=torch.channels_last)
    if _failure(laid_out, quirks, x):
        return True
    here, there = _answers(_copied(model), quirks, x), _answers(_copied(laid_out), quirks, x)
    if not (here - there).abs().max() <= SAME_LAYOUT * here.abs().max():
        return True
    return has_gradient and _gradient(laid_out, quirks, x) is None

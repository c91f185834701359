"""What must hold before an attack: settings, images, labels and a model that a number can mean something for."""

from numbers import Real

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from attacks.errors import InputError, one_line
from attacks.out_of_memory import is_out_of_memory
from attacks.spec import require_count

MOST_PASSES = 10_000


def check_settings(*, epsilon: float, seed: int, batch_size: int, judge_draws: int, eot: int | None) -> None:
    """Raise InputError for settings out of the bounds that the command line has."""
    if isinstance(epsilon, bool) or not isinstance(epsilon, Real):
        raise InputError(f"epsilon must be a number in pixel scale such as 8 / 255, got {epsilon!r}")
    require_count("seed", seed, least=0)
    require_count("batch_size", batch_size)
    require_count("judge_draws", judge_draws, most=MOST_PASSES)
    require_count("eot", 1 if eot is None else eot, most=MOST_PASSES)


def check_data(x: Tensor, y: Tensor) -> None:
    """Raise InputError for what are no images (N, C, H, W) in [0, 1] with labels (N,)."""
    for what, value in (("images x", x), ("labels y", y)):
        if not isinstance(value, Tensor):
            raise InputError(f"expected {what} as a tensor, got {type(value).__name__}; use torch.as_tensor")
    if x.ndim != 4 or not x.is_floating_point() or not len(x):
        raise InputError(f"expected float images (N, C, H, W), one at least, got {x.dtype} of shape {tuple(x.shape)}")
    if y.shape != x.shape[:1] or y.is_floating_point() or y.dtype == torch.bool:
        raise InputError(f"expected a class index for each of {len(x)} images, got {y.dtype} of shape {tuple(y.shape)}")
    check_pixels(x)


def check_pixels(x: Tensor, *, of: str = "") -> None:
    """Raise InputError for images x (N, C, H, W) that leave [0, 1], or have NaN; `of` names their dataset."""
    low, high = x.aminmax()
    if not (low >= 0 and high <= 1):
        remedy = "clip them" if low > -0.01 and high < 1.01 else "divide by 255, normalise in the model"
        raise InputError(f"{of}expected pixels in [0, 1], got [{low:.8g}, {high:.8g}]; {remedy}")


def check_index(index: Tensor | None, n: int) -> Tensor:
    """(n,) int64, ascending: the images' places in their dataset, or 0 to n - 1. Raises: InputError for others."""
    if index is None:
        return torch.arange(n)
    if not isinstance(index, Tensor) or index.shape != (n,) or index.is_floating_point() or index.dtype == torch.bool:
        raise InputError(f"expected index as a tensor of {n} whole numbers, got {index!r}")
    index = index.long().cpu()
    if n and (index[0] < 0 or (index.diff() <= 0).any()):
        raise InputError("expected index to ascend from 0 or more, got others; sort images and labels by it")
    return index


def lazy_weight(model: nn.Module) -> str:
    """The name of a weight that a lazy layer has not got yet; "" where all are there."""
    return next((name for name, value in model.state_dict().items() if is_lazy(value)), "")


def check_mode(model: nn.Module) -> None:
    """Raise InputError for what is no module in eval mode with all its weights."""
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a torch.nn.Module, got {type(model).__name__}; wrap it in a module's forward")
    has_modes = getattr(model.train, "__module__", "") != "torch.export.exported_program"  # whose flag says nothing
    if getattr(model, "training", False) and has_modes:  # a frozen program of TorchScript has no flag
        raise InputError("expected a model in eval mode, got one in train mode; call model.eval()")
    if unknown := lazy_weight(model):
        raise InputError(
            f"expected weights for all layers, got none for {unknown!r}, which is lazy; run the model on an image first"
        )


def class_count(model: nn.Module, x: Tensor, y: Tensor, *, rejects: bool = False) -> int:
    """How many classes a model knows, by its logits of images x (N, C, H, W).

    Args:
        rejects: whether the last logit is none of a class, but says that an image is rejected.

    Raises: InputError where it returns no logits (N, K), or where a label, any shape of y, is not below K.
    """
    try:
        with torch.no_grad():
            logits = model(x)
    except Exception as error:  # the model may be the user's own code, and raise what it likes
        if is_out_of_memory(error):
            raise
        reason = error if isinstance(error, InputError) else one_line(error)
        raise InputError(f"the model cannot take images of shape {tuple(x.shape)}: {reason}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2 + rejects:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"expected logits of shape ({len(x)}, {'K + 1' if rejects else 'K'}) for two classes at least, got {got}; "
            "have the model return its logits alone"
        )
    classes = logits.shape[1] - rejects
    if not (y.min() >= 0 and y.max() < classes):
        raise InputError(f"expected labels in 0..{classes - 1}, got {int(y.min())}..{int(y.max())}")
    return classes


def require_gradient(model: nn.Module, x: Tensor) -> None:
    """Raise InputError for logits without a gradient with respect to the images (N, C, H, W), and say why."""
    remedy = "mend it, or use an attack that needs no gradient, such as square"
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        try:
            total = model(x).sum()
            (gradient,) = torch.autograd.grad(total, x, allow_unused=True) if total.requires_grad else (None,)
        except Exception as error:  # the model may be the user's own code, and raise what it likes
            if is_out_of_memory(error):
                raise
            reason = error if isinstance(error, InputError) else f"the model raised {one_line(error)}"
            where = "in its backward pass" if raised_in_backward(error) else "where a gradient is asked for"
            raise InputError(f"{where}: {reason}; {remedy}") from error
    if gradient is None:
        raise InputError(
            "its logits have no gradient with respect to the image; remove no_grad, detach, numpy, or use an "
            "attack that needs none, such as square"
        )


def raised_in_backward(error: BaseException) -> bool:
    """Whether an exception came out of a backward pass."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in _BACKWARD:
            return True
        trace = trace.tb_next
    return False


_BACKWARD = tuple(function.__code__ for function in (torch.autograd.grad, torch.autograd.backward, Tensor.backward))

"""Whether a graph computes what the model computes that it was made of: on some images, in float32."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from attacks.errors import InputError
from attacks.precision import full_float32
from model_zoo.bounds.graph import Network
from model_zoo.bounds.interval_bounds import image_box
from model_zoo.bounds.reach import interval_reaches

ELEMENTS = 2**26
"""Numbers of all nodes together that are held at a time: half a gigabyte of each bound."""
LARGEST = 1e-3
"""How far a float32 pass may be from the exact one at most, as a share of the largest logit.

In a deep network intervals allow for much more than rounding ever comes to.
"""


@torch.no_grad()
def refuse_disagreement(network: Network, model: nn.Module, x: Tensor) -> None:
    """Raise InputError where the model computes anything in another precision, or other logits than its graph.

    Args:
        network: the graph of the model, with the noise of float32.
        model: as it is judged.
        x: (N, C, H, W) images in [0, 1], on the model's device.
    """
    with full_float32(), _Precisions() as seen:
        logits = model(x)
    if others := sorted(str(dtype).removeprefix("torch.") for dtype in seen.dtypes - {torch.float32}):
        raise InputError(
            f"expected a model that computes in float32, whose rounding the bounds know, got {' and '.join(others)}; "
            "leave out autocast and casts, or certify by smoothing"
        )
    size = max(1, ELEMENTS // sum(torch.Size(node.shape).numel() for node in network.nodes))
    for images, own in zip(x.double().split(size), logits.double().split(size), strict=True):
        box, exact = interval_reaches(network, image_box(images, 0.0))[-1].box, network.outputs(images)[-1]
        off = (own - exact).abs()
        agrees = (own >= box.lower) & (own <= box.upper) & (off <= LARGEST * exact.abs().amax(1, keepdim=True))
        if not agrees.all():
            raise InputError(
                "expected logits that are those of the layers as they were traced, but for rounding, got logits "
                f"{off.max():.3g} from them; something that tracing does not show changes what the model computes: "
                "certify by smoothing, or write the network without it"
            )


class _Precisions(TorchDispatchMode):
    """Notes the floating-point types of all that is computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        found = (leaf.dtype for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor))
        self.dtypes.update(dtype for dtype in found if dtype.is_floating_point)
        return out

"""Models with known answers beside those under test: if they withstand more than recorded, the attack is to blame.

`undefended` falls to any attack that works, and `robust` withstands part of it. `masked` is undefended, too, but sees
rounded pixels, whose gradient is zero: an attack that only follows gradients does not see that it is defenceless.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from attacks.errors import InputError
from benchmark.stats.shares import Bools
from model_zoo.model_spec import ModelSpec

LEVELS = 8
"""Between black and white, of the pixels that the masked canary sees."""

STRONGER = ("autoattack-brief", "autoattack-fast", "autoattack", "autoattack-plus")
"""What is advised in place of an attack that is blind to masking: the first, or of these the next."""


class Rounded(nn.Module):
    """A model that sees rounded pixels."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model((LEVELS * x).round() / LEVELS)
        return logits


def canary_name(kind: str) -> str:
    """As in the baseline and the report."""
    return f"canary-{kind}"


def canary_spec(kind: str, model: ModelSpec) -> ModelSpec:
    """What identifies a canary made of a registered model."""
    made = f"pixels rounded to multiples of 1/{LEVELS}" if kind == "masked" else "as it is"
    return replace(model, name=canary_name(kind), architecture=f"{model.architecture}, {made}: a canary")


def canary_model(kind: str, model: nn.Module) -> nn.Module:
    """The canary's network, made of that of a registered model."""
    return Rounded(model).eval().requires_grad_(False) if kind == "masked" else model


def blindness(attack: str, robust: Bools, correct: Bools) -> str:
    """What it means that an attack leaves more than half of the masked canary standing; "" where it does not.

    Args:
        robust, correct: (N,) of its images, under the attack and clean.
    """
    if robust.mean() <= 0.5 * correct.mean():
        return ""
    tried = STRONGER.index(attack) + 1 if attack in STRONGER else 0
    remedy = f"use --attack {STRONGER[tried]}" if tried < len(STRONGER) else "choose others by --canaries"
    return (
        f"{attack} leaves {100 * robust.mean():.1f}% of the gradient-masked canary standing, which is undefended: "
        f"a masked model would pass this gate; {remedy}"
    )


def choose_canaries(names: str | None, models: Sequence[ModelSpec]) -> Mapping[str, ModelSpec]:
    """The model of each kind of canary: "UNDEFENDED,ROBUST" as named, or the first natural and the first other one."""
    known = {spec.name: spec for spec in models}
    if names == "none":
        return {}
    if names is not None:
        chosen = [name.strip() for name in names.split(",")]
        if len(chosen) != 2 or any(name not in known for name in chosen):
            raise InputError(
                f"--canaries takes UNDEFENDED,ROBUST, two models of the suite (or none), got {names!r}; "
                f"models here: {', '.join(known)}"
            )
        undefended, robust = (known[name] for name in chosen)
    else:
        natural = [spec for spec in models if spec.defense == "natural"]
        defended = [spec for spec in models if spec.defense not in ("natural", "")]
        if not natural or not defended:
            raise InputError(
                "expected an undefended and a robust model of the suite to be canaries, found "
                f"{', '.join(known) or 'none'}; name them by --canaries UNDEFENDED,ROBUST (none: do without)"
            )
        undefended, robust = natural[0], defended[0]
    return {"undefended": undefended, "robust": robust, "masked": undefended}

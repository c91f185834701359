"""A network wrapped by hand to normalise its images: the prefix of its names, and the constants beside them."""

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from attacks.errors import InputError
from attacks.models.normalisation import IS_MEAN, IS_STD, MOST_CHANNELS, Normalisation


def is_constant(name: str, value: object) -> bool:
    """Whether an entry of a state dict is a mean or a std of images, by its name and size."""
    last = name.rpartition(".")[2]
    named_so = IS_MEAN.fullmatch(last) or IS_STD.fullmatch(last)
    return bool(named_so) and isinstance(value, Tensor) and value.numel() <= MOST_CHANNELS


def prefix_of(longer: Collection[str], shorter: Collection[str]) -> str:
    """What stands in front of the longer names, which are the shorter ones apart from that; "" where they are not."""
    if not shorter or len(longer) != len(shorter):
        return ""
    first = next(iter(shorter))
    prefixes = {name.removesuffix(first) for name in longer if name.endswith(f".{first}")}
    fitting = [prefix for prefix in prefixes if {prefix + name for name in shorter} == set(longer)]
    return fitting[0] if fitting else ""


def normalisation_in(constants: Mapping[str, Tensor]) -> Normalisation | None:
    """The normalisation of some constants, by name, to six digits; None where they are not one mean and one std."""
    means, stds = (
        [value.flatten().tolist() for name, value in constants.items() if kind.fullmatch(name.rpartition(".")[2])]
        for kind in (IS_MEAN, IS_STD)
    )
    if len(means) != 1 or len(stds) != 1:
        return None
    mean, std = (tuple(float(f"{number:.6g}") for number in values) for values in (*means, *stds))
    return Normalisation(mean, std)


def unsaved_constants(model: nn.Module) -> dict[str, Tensor]:
    """By name, the means and stds of images that a model holds in buffers which no state dict has."""
    saved = model.state_dict()
    return {name: value for name, value in model.named_buffers() if name not in saved and is_constant(name, value)}


def require_given(constants: Mapping[str, Tensor], given: Normalisation | None, *, source: str) -> None:
    """Raise InputError unless the normalisation that a checkpoint holds beside the weights is the one that is given.

    Args:
        constants: by name, what of the checkpoint is a mean or a std, and the model has no place for.
        given: what stands in front of the model.
    """
    held, names = normalisation_in(constants), ", ".join(map(repr, constants))
    if held is None:
        raise InputError(
            f"{source}: expected the weights of the model alone, got parts of a normalisation, too ({names}); have the "
            "factory return the model with it"
        )
    if given is None or not (_alike(held.mean, given.mean) and _alike(held.std, given.std)):
        raise InputError(
            f"{source}: expected the normalisation that it holds beside the weights ({names}), got "
            f"{given or 'none'}; give {held}, or have the factory return the model with it"
        )


def _alike(held: tuple[float, ...], given: tuple[float, ...]) -> bool:
    """Whether two are the same but for rounding; what is held may be one value for all channels."""
    held = held * len(given) if len(held) == 1 else held
    return len(held) == len(given) and all(abs(a - b) <= 1e-4 * abs(b) for a, b in zip(held, given, strict=True))

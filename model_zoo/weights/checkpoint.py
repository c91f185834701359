"""Reading and writing weights. Nothing in a file is ever run, and a bad file answers in one line."""

import hashlib
import io
import json
import re
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from attacks.errors import InputError
from attacks.models.normalisation import Normalisation
from model_zoo.files.atomic import atomic_write
from model_zoo.weights.numpy_numbers import NUMPY_NUMBERS
from model_zoo.weights.program import kind_of_program
from model_zoo.weights.torch_file import find_hostile_content, what_instead
from model_zoo.weights.weight_keys import UNREAD, fitted, unwrapped
from model_zoo.weights.wrapper import is_constant, normalisation_in, require_given, unsaved_constants

LARGEST = 64 * 2**30
"""Bytes of a checkpoint; what claims to be larger is none."""


def silent(_: str) -> None:
    """Tell nobody."""


def load_state_dict(
    path: Path, *, sha256: str | None = None, tell: Callable[[str], None] = silent
) -> dict[str, Tensor]:
    """The weights in a file, on the CPU: safetensors by its suffix, anything else as a torch file of either format.

    The tensors may lie under one of the keys in `WRAPPERS`. Their names stay as they are; `load_into` fits them to a
    model's.

    Args:
        sha256: what the file's hash must be, in hex; checked before anything is parsed. None: not checked.
        tell: called with which weights were taken, where the file holds several.

    Raises:
        InputError: no readable file, another file than expected, or content that is not tensors by name. A pickle
            that wants to run code is refused.
    """
    data = _read(path)
    if sha256 is not None and (got := hashlib.sha256(data).hexdigest()) != sha256.lower():
        raise InputError(f"{path}: expected sha256 {sha256}, got {got}; download the file again or mend the entry")
    is_safetensors = path.suffix.lower() == ".safetensors"
    content, chosen = unwrapped(_parse_safetensors(path, data) if is_safetensors else _parse_torch(path, data))
    if chosen:
        tell(f"note: {path}: {chosen}")
    return _named_tensors(path, content)


def load_into(
    model: nn.Module, state_dict: Mapping[str, Tensor], *, source: str, normalisation: Normalisation | None = None
) -> str:
    """Load weights strictly, in place; on an error the model is as it was.

    Names are tried as they are; where the model lacks them, without what wrappers put in front of them. Three
    differences are not errors: `sub_block1.*`, which released wide ResNets carry and never use, is dropped;
    `num_batches_tracked`, which old files lack and evaluation never reads, keeps its value; and so do the mean and std
    by which a model normalises its images, where the file has none.

    Args:
        source: where the weights come from, for the message.
        normalisation: what stands in front of the model. A mean and std in the file must be those, or the model's own.

    Returns: what was done to the names, in a few words; "" for nothing.

    Raises:
        InputError: the weights do not fit the model, or were trained behind another normalisation.
    """
    own = model.state_dict()
    state_dict, done = fitted(state_dict, own)
    if not any(name.startswith("sub_block1.") for name in own):
        state_dict = {name: value for name, value in state_dict.items() if not name.startswith("sub_block1.")}
    missing = [name for name in own if name not in state_dict and not name.endswith(UNREAD)]
    kept = {name: own[name] for name in missing if is_constant(name, own[name])}
    missing = [name for name in missing if name not in kept]
    homeless = {name: value for name, value in state_dict.items() if name not in own}
    constants = {name: value for name, value in homeless.items() if is_constant(name, value)}
    unexpected = [name for name in homeless if name not in constants]
    known = {name: value for name, value in own.items() if isinstance(value, Tensor) and not is_lazy(value)}
    reshaped = [name for name in known if name in state_dict and state_dict[name].shape != known[name].shape]
    problem = ""
    if missing or unexpected:
        problem = f"{_count(missing, 'missing')} and {_count(unexpected, 'unexpected')}"
    elif reshaped:
        name = reshaped[0]
        problem = f"{name!r} has shape {tuple(state_dict[name].shape)}, expected {tuple(known[name].shape)}"
    if reshaped and not (missing or unexpected) and (counts := _class_counts(state_dict, known, reshaped)):
        raise InputError(
            f"{source}: expected the weights of a {type(model).__name__} for {counts[1]} classes, got those for "
            f"{counts[0]}; build the model for as many, or for images of your own name all {counts[0]} classes by "
            "--classes"
        )
    if problem:
        raise InputError(
            f"{source}: expected the weights of a {type(model).__name__}, got others: {problem}; if the checkpoint "
            "is of another architecture or number of classes, name that one; if it is of this one, save all of its "
            "state_dict(), or build the network with exactly the layers that it was saved with"
        )
    if constants:
        own_constants = kept or unsaved_constants(model)
        require_given(constants, normalisation_in(own_constants) if own_constants else normalisation, source=source)
    model.load_state_dict(own | {name: state_dict[name] for name in state_dict if name in own}, strict=True)
    left = f"left {', '.join(map(repr, kept))} as the factory made them" if kept else ""
    return ", ".join(filter(None, [done, left]))


def _class_counts(
    there: Mapping[str, Tensor], own: Mapping[str, Tensor], reshaped: Sequence[str]
) -> tuple[int, int] | None:
    """How many classes the weights are for and the model has, where their last layer alone differs, and in that alone.

    Args:
        reshaped: the names whose shapes differ, in the order of the model.
    """
    layers = {name.rpartition(".")[0] for name in reshaped}
    heads = {(there[name].shape[:1], own[name].shape[:1]) for name in reshaped}
    is_first = all(there[name].shape[1:] == own[name].shape[1:] and own[name].ndim for name in reshaped)
    if len(layers) != 1 or len(heads) != 1 or not is_first or reshaped[-1] != list(own)[-1]:
        return None
    (got,), (expected,) = next(iter(heads))
    return got, expected


def save_state_dict(state_dict: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> str:
    """Write weights as safetensors, all or nothing. The same weights and metadata give the same bytes.

    Returns: the file's sha256 in hex.

    Raises:
        InputError: `path` does not end in .safetensors, by which `load_state_dict` knows the format.
    """
    if path.suffix.lower() != ".safetensors":
        raise InputError(f"expected a file name ending in .safetensors, got {path}; rename it")
    # Copied one by one: safetensors takes neither shared storage (tied weights) nor strides.
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state_dict.items()}
    data = _with_sorted_header(safetensors.torch.save(tensors, dict(metadata)))
    atomic_write(path, data)
    return hashlib.sha256(data).hexdigest()


def state_digest(state_dict: Mapping[str, Any]) -> str:
    """The sha256 of the weights themselves, in hex: names in sorted order, dtypes, shapes and bytes.

    It depends neither on the file format nor on the order of the entries, nor on device, strides or metadata. What a
    quantised layer, or one with an extra state, holds beside tensors counts by its parts, or by what it prints as.
    """
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        for part, value in _parts(name, state_dict[name]):
            if isinstance(value, Tensor):
                value = (value if value.layout == torch.strided else value.to_dense()).detach().cpu().contiguous()
                digest.update(json.dumps([part, str(value.dtype), list(value.shape)]).encode() + b"\n")
                digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
            else:
                digest.update(json.dumps([part, type(value).__name__, _printed(value)]).encode() + b"\n")
    return digest.hexdigest()


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What an entry of a state dict is made of; a quantised tensor of whole numbers and their scale."""
    if isinstance(value, Tensor) and value.is_quantized:
        yield name, value.int_repr()
        yield f"{name} (scale)", value.dequantize()
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _parts(f"{name}.{key}", value[key])
    elif isinstance(value, (list, tuple)):
        for place, part in enumerate(value):
            yield from _parts(f"{name}.{place}", part)
    else:
        yield name, value


def _printed(value: Any) -> str:
    """What it prints as, but for a place in memory, which is another in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


LAST = ".last.safetensors"
"""Behind a model's name: its weights after the last epoch of training, beside those of the best one."""


def _read(path: Path) -> bytes:
    try:
        about = path.stat()
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
            raise InputError(f"{path}: expected a checkpoint file, got a device or a pipe; name a file")
        if about.st_size > LARGEST:
            raise InputError(f"{path}: expected a checkpoint, got {about.st_size} bytes, more than any has; mend it")
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        where = path.absolute()
        raise InputError(f"expected a checkpoint at {where}, found none; put it there or mend the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected a checkpoint file, got a folder; name the file inside it") from None
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "more bytes than memory"
        raise InputError(f"{path}: expected a readable checkpoint, got: {reason}; mend its access") from None
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data:
        raise InputError(f"{path}: expected a checkpoint, got an empty file; download it again")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(f"{path}: expected a checkpoint, got what looks like a web page; download the file itself")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: expected a checkpoint, got a Git LFS pointer; run git lfs pull in its repository")
    return data


def _parse_safetensors(path: Path, data: bytes) -> object:
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError):
        raise InputError(
            f"{path}: expected a safetensors file, got {len(data)} bytes that are none: truncated, damaged or of "
            "another format; download it again"
        ) from None


def _parse_torch(path: Path, data: bytes) -> object:
    if kind := kind_of_program(io.BytesIO(data)):
        raise InputError(
            f"{path}: expected a torch checkpoint, got a program of {kind}: refused because it wants to run code; "
            "save a plain state dict, or give it without --model and with --trust-code"
        )
    if reason := find_hostile_content(data):
        raise InputError(f"{path}: expected a torch checkpoint, got {reason}: refused; save a plain state dict instead")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on odd pickles; whether it loads is all that matters
        try:
            with torch.serialization.safe_globals(NUMPY_NUMBERS):
                content: object = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # damaged bytes fail in any of pickle's, zip's and torch's ways
            raise InputError(f"{path}: expected a torch checkpoint, got {what_instead(data, error)}") from None
    return content


def _named_tensors(path: Path, content: object) -> dict[str, Tensor]:
    expected = f"{path}: expected tensors by name, plain or under state_dict, model, net, ema or the like"
    if not isinstance(content, Mapping) or not content:
        got = "an empty one" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise InputError(f"{expected}, got {got}; save model.state_dict()")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{expected}, got {type(value).__name__} for {name!r}; save model.state_dict()")
        if value.layout != torch.strided or value.device.type != "cpu":
            raise InputError(f"{expected}, got a {value.layout} one on {value.device} for {name!r}; save dense tensors")
    return {name: value.detach() for name, value in content.items()}


def _count(names: list[str], what: str) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names) or 'no'} {what} key{'s' * (len(names) != 1)}" + (f" ({shown})" if names else "")


def _with_sorted_header(data: bytes) -> bytes:
    """The same safetensors file with its header in sorted order: the library writes metadata in random order."""
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the format aligns the tensors that follow
    return len(header).to_bytes(8, "little") + header + data[8 + size :]

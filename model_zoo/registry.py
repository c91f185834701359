"""Every model that the harness knows: an explicit table, and the cards of models trained here."""

import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from attacks.errors import InputError
from attacks.names import lookup
from model_zoo.architectures.registry import build
from model_zoo.checkpoint import load_into, load_state_dict, sha256_of, state_digest

SHIPPED = Path(__file__).parent / "checkpoints"
"""Where the checkpoints lie that come with the harness."""


class Published(NamedTuple):
    """A figure from a paper: accuracy in percent under an attack ("clean" for none), and where it stands."""

    suite: str
    attack: str
    accuracy: float
    where: str


@dataclass(frozen=True)
class ModelSpec:
    """A trained classifier: what it is, and where its weights are.

    Args:
        name: as on the command line and in the tables.
        suites: the suites it belongs to.
        dataset: it was trained on.
        architecture: a name of the architecture table, or for a user's own model its factory.
        defense: how it was trained.
        checkpoint: file name below a checkpoint folder; a path for a user's own model; "" where its factory has the
            weights.
        sha256: of the checkpoint file; of the weights where there is no file.
        paper: arXiv number or citation.
        url: where the authors publish the file.
        published: figures to stand beside the measured ones.
        code: sha256 of a user's model code, which determines the numbers as the weights do.
    """

    name: str
    suites: Sequence[str]
    dataset: str
    architecture: str
    defense: str
    checkpoint: str
    sha256: str
    paper: str = ""
    url: str = ""
    published: Sequence[Published] = ()
    code: str = ""

    @property
    def identity(self) -> dict[str, str]:
        """What determines this model's logits."""
        return {"checkpoint_sha256": self.sha256, "architecture": self.code or self.architecture}


def _digits(name: str, defense: str, sha256: str, paper: str, *, architecture: str = "digits-cnn") -> ModelSpec:
    """A shipped model; the command that trained it stands in the card beside its checkpoint."""
    suites = ("digits", "digits-l2")
    return ModelSpec(name, suites, "digits", architecture, defense, f"digits/{name}.safetensors", sha256, paper)


MODELS: Sequence[ModelSpec] = (
    _digits("natural", "natural", "7d6381f3107ffb9caf175aa326ba958bf530a6b3ddc7b309b7b4ee5bda926cfa", "-"),
    _digits("madry", "madry", "13439d8556b1ca66f6ca5a1752f5d310d135f4a07c4173a8857a04a6ed251d8a", "arXiv:1706.06083"),
    _digits(
        "half-half", "half-half", "d2ac3300aea5f2b66da794e1c6e853d1a7a5abdf594b8d1e823a470b80bc5ca3", "arXiv:2002.10716"
    ),
    _digits(
        "trades-b1", "trades", "7afca270b764200d3c52e0f167e651f31a095011f477ddbf47783e90a6ae0211", "arXiv:1901.08573"
    ),
    _digits(
        "trades-b6", "trades", "28df6ef08fa37eb4a461485161d05802e13b5285801a9397cc780ae3ea469f07", "arXiv:1901.08573"
    ),
    _digits("mixed", "mixed", "9412adf5af4676cf1aa30b1b13b376aac82f4d031e68d9dde307f8e4e118939f", "arXiv:1611.01236"),
    _digits(
        "input-gradient",
        "input-gradient",
        "dcaaa1677f8baf8cb7e487f1e0abdb25c6d36199f8af1a936c6237c9b47f1b1a",
        "arXiv:1711.09404",
    ),
    _digits(
        "stability", "stability", "c9b0f9b291dc7c14532e890a0309a52be55cda0b9096ca7014040a5c8fa76623", "arXiv:1604.04326"
    ),
    _digits("mart", "mart", "5c9728b55f1f19745ff2dda4351572a5706050c395114788a03881e5d5528e94", "ICLR 2020"),
    _digits("fat", "fat", "2f321afba9d73faf32cd1e3e61197182cd0d25efb5885580837b72aeb2319c49", "arXiv:2002.11242"),
    _digits(
        "fat-trades-b6",
        "fat-trades",
        "40e1550e9db231bc00aef17afd427704f4f0e7493d4d878d35d24af7094b45ae",
        "arXiv:2002.11242",
    ),
    _digits(
        "fat-mart", "fat-mart", "09b6e160b7258318ec458b4a141ffcb173b853e8368cc826cbbb51f79e823f5d", "arXiv:2002.11242"
    ),
    _digits("cat", "cat", "bc86504db33129d53f193cf894d928c5b0172c78f6ea9a86c0988c383f7af433", "arXiv:1805.04807"),
    _digits("dat", "dat", "bad0ee8ce315c152accc617d43814a117a8551c51cbe59c30644fe1a04746bb4", "ICML 2019"),
    _digits("gairat", "gairat", "27b58456766e089c0dd95c5b946638c3bd3e1c09c6feb8515903706f774fc528", "arXiv:2010.01736"),
    _digits(
        "gair-fat", "gair-fat", "9699bac41027004a1c409ab249dadc5c7cc8e3b3a19bce2182d9299c5c503787", "arXiv:2010.01736"
    ),
    _digits("free", "free", "e7fbf8002d75ef8f1e8333c956845df91542b4e53eaef9a4c67cf64a68036b6e", "arXiv:1904.12843"),
    _digits("fast", "fast", "a8ee98a9c131d7174ac064306d1116b4a8c2ef668e7f58843f7e5fbe128005ed", "arXiv:2001.03994"),
    _digits(
        "self-training",
        "self-training",
        "6dac21449509c7500f381a10a323f88248d20bed5d7e6c71041c566e728b52b9",
        "arXiv:1905.13736",
    ),
    _digits("rst", "rst", "7d6ae720bd675fe184dc34ad001f838c1139014103e851309a187dfda4c0857f", "arXiv:1905.13736"),
    _digits(
        "rst-stability",
        "rst-stability",
        "287044c47d5e38111c19eb22b0fc64a242cb0b51f04aebb4b81da81530d84ea7",
        "arXiv:1905.13736",
    ),
    _digits(
        "gair-rst", "gair-rst", "f1f03882671b0314137231fa7bcda8be62850211d6dbd677fda2d1b011e503fe", "arXiv:2010.01736"
    ),
    _digits(
        "fine-tuning",
        "fine-tuning",
        "ccd1a9c65aa483589332f382534293224e67ba433c1a92e87b6021b932cfef33",
        "arXiv:1901.09960",
    ),
    _digits(
        "transfer-last-layer",
        "transfer-last-layer",
        "79091d77a8d57487f91ea13e52047032030093a2be4b15110b2d117e0ed33a43",
        "arXiv:1905.08232",
    ),
    _digits(
        "transfer-mlp",
        "transfer-mlp",
        "f102353cdd04a660165f2b755ab3663e090a2af38e0ff9ffaae051dc2b9aec3c",
        "arXiv:1905.08232",
        architecture="digits-cnn+mlp",
    ),
    _digits(
        "transfer-lwf",
        "transfer-lwf",
        "60dd5b29c8278274979ae2139290376dba1db2c53eb2138de716b2d3e1cb2525",
        "arXiv:1905.08232",
    ),
    _digits(
        "cascade", "cascade", "6631628e96aad807a39db178161ef7d61953310c2118b0533cd7100ccc912028", "arXiv:1708.02582"
    ),
    _digits("ibp", "ibp", "50ade1429ff3112b6dd985496111b02ae6f49e3f08148120c0ff7e608dd85ed9", "arXiv:1810.12715"),
    _digits(
        "convex-bound",
        "convex-bound",
        "86f74743a2a4f3b22ebbc406c00d777d34e8a5fb0c96fbe979f73dd03b431a63",
        "arXiv:1711.00851",
    ),
    _digits(
        "smoothing-0.25",
        "smoothing",
        "e95055658c01dd513e4b07d88cfc7f4f5cd5ec6951ce05e060282c1b0acb7f93",
        "arXiv:1902.02918",
    ),
    ModelSpec(
        name="trades-mnist-zhang2019",
        suites=("mnist", "trades-mnist"),
        dataset="mnist",
        architecture="small-cnn",
        defense="trades",
        checkpoint="model_mnist_smallcnn.pt",
        sha256="5b99888064f692047d5592b38df2dde126aa1b991a26c6aad683ce709634bea0",
        paper="arXiv:1901.08573",
        url="https://github.com/yaodongyu/TRADES",
        published=(
            Published("trades-mnist", "clean", 99.48, "README of yaodongyu/TRADES"),
            Published("trades-mnist", "pgd-40", 96.07, "README of yaodongyu/TRADES, 40 steps of 0.01"),
            Published("mnist", "clean", 99.48, "README of yaodongyu/TRADES"),
            Published("mnist", "autoattack-reference", 92.81, "README of fra31/auto-attack"),
        ),
    ),
)


def models_of(suite: str, checkpoint_dir: Path) -> dict[str, ModelSpec]:
    """The models of a suite by name: registered ones, then those trained into `checkpoint_dir`.

    A model trained by the user stands in for a registered one of the same name.
    """
    specs = {spec.name: spec for spec in MODELS if suite in spec.suites}
    for path in sorted((checkpoint_dir / suite).glob("*.json")):
        spec = read_card(path)
        specs[spec.name] = spec
    return specs


def model_spec(name: str, suite: str, checkpoint_dir: Path) -> ModelSpec:
    """The model of that name. Raises: InputError that names the nearest match."""
    return lookup(name, models_of(suite, checkpoint_dir), f"model of suite {suite}")


def card(spec: ModelSpec, record: Mapping[str, Any]) -> bytes:
    """The bytes of a model's card: its spec, and how it was trained."""
    return (json.dumps({"model": asdict(spec), "training": dict(record)}, indent=1) + "\n").encode()


def read_card(path: Path) -> ModelSpec:
    """The model that a card describes. Raises: InputError for a file that is no card."""
    try:
        fields = json.loads(path.read_text())["model"]
        return ModelSpec(**{**fields, "suites": tuple(fields["suites"]), "published": ()})
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected the card of a trained model, got {error}; remove it or train again"
        ) from None


def find_checkpoint(spec: ModelSpec, checkpoint_dir: Path) -> Path:
    """The checkpoint's file: in the user's folder, else among those shipped. Raises: InputError if in neither."""
    candidates = [folder / spec.checkpoint for folder in (checkpoint_dir, SHIPPED)]
    there = [path for path in candidates if path.exists()]
    for path in there:  # a user's file of the same name may belong to another model
        if len(there) == 1 or sha256_of(path) == spec.sha256:
            return path
    if there:
        return there[0]
    get = f"get {Path(spec.checkpoint).name} from {spec.url}" if spec.url else "train it"
    raise InputError(
        f"model {spec.name}: expected its checkpoint at {candidates[0]}; {get}, or name its folder by --checkpoint-dir"
    )


def load_model(spec: ModelSpec, checkpoint_dir: Path, *, classes: int) -> nn.Module:
    """The model with its weights, in eval mode, its parameters frozen, on the CPU.

    Raises: InputError for a checkpoint that is missing, damaged, unsafe, or for another architecture.
    """
    if spec.code:
        model = _call_factory(spec.architecture)
        if spec.checkpoint:
            _load_weights(model, Path(spec.checkpoint), spec.sha256)
        elif spec.sha256 and state_digest(model.state_dict()) != spec.sha256:
            raise InputError(
                f"--model {spec.architecture}: the factory returns other weights at each call; use --checkpoint"
            )
    else:
        model = build(spec.architecture, classes)
        _load_weights(model, find_checkpoint(spec, checkpoint_dir), spec.sha256)
    return model.eval().requires_grad_(False)


def external_model(factory: str, checkpoint: Path | None, *, dataset: str, suite: str, name: str = "") -> ModelSpec:
    """The spec of a user's own model, which needs no registration.

    Args:
        factory: "PATH.py:FUNCTION" or "package.module:FUNCTION"; called without arguments, it returns a torch module.
        checkpoint: its weights; None if the factory loads them.
        name: in the tables; by default the function's name.

    Raises: InputError for a factory or checkpoint that cannot be used.
    """
    function = factory.rpartition(":")[2]
    code = _code_of(*_find_factory(factory))
    sha256 = sha256_of(checkpoint) if checkpoint and checkpoint.is_file() else ""
    spec = ModelSpec(
        name=name or function,
        suites=(suite,),
        dataset=dataset,
        architecture=factory,
        defense="",
        checkpoint=str(checkpoint) if checkpoint else "",
        sha256=sha256,
        code=f"{function}@{code or factory}",
    )
    model = load_model(spec, Path(), classes=0)
    return spec if checkpoint else replace(spec, sha256=state_digest(model.state_dict()))


def _load_weights(model: nn.Module, path: Path, sha256: str) -> None:
    load_into(model, load_state_dict(path, sha256=sha256 or None), source=str(path))


def _call_factory(factory: str) -> nn.Module:
    _, function = _find_factory(factory)
    try:
        with torch.random.fork_rng(devices=[]):  # weights that the factory draws are the same at every call
            torch.manual_seed(0)
            model = function()
    except Exception as error:  # the user's own code may raise what it likes
        raise InputError(f"--model {factory}: the factory failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise InputError(
            f"--model {factory}: expected the factory to return a torch.nn.Module, got {type(model).__name__}"
        )
    return model


def _code_of(module: ModuleType, function: Callable[[], Any]) -> str:
    """sha256 of a factory's code: its file, the one that defines it, and those that importing it brought in."""
    defined = inspect.getmodule(function)
    files = {str(m.__file__) for m in (module, defined) if m is not None and getattr(m, "__file__", None)}
    files.update(_IMPORTED.get(module.__name__, ()))
    digests = sorted(sha256_of(Path(file)) for file in files if Path(file).is_file())
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


_IMPORTED: dict[str, Sequence[str]] = {}
"""For each of the user's modules the files, outside of installed packages, that importing it brought in."""


def _own_files(names: set[str]) -> Sequence[str]:
    files = [getattr(sys.modules[name], "__file__", None) for name in names]
    return [file for file in files if file and "site-packages" not in file]


def _find_factory(factory: str) -> tuple[ModuleType, Callable[[], Any]]:
    place, _, function = factory.rpartition(":")
    if not place or not function:
        raise InputError(f"--model must be PATH.py:FACTORY or module:FACTORY, got {factory!r}")
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    found = getattr(module, function, None)
    if not callable(found):
        callables = {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("_")}
        found = lookup(function, callables, f"factory in {place}")
    return module, found


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"--model: expected a Python file at {path}, found none")
    name = f"user_model_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    before = set(sys.modules)
    try:
        module_spec.loader.exec_module(module)
        _IMPORTED[name] = _own_files(set(sys.modules) - before)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"--model: {path} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _import_module(name: str) -> ModuleType:
    before = set(sys.modules)
    try:
        module = importlib.import_module(name)
    except Exception as error:  # the user's own code may raise what it likes
        raise InputError(f"--model: module {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    _IMPORTED.setdefault(name, _own_files(set(sys.modules) - before))
    return module

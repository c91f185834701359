"""Every model that the harness knows: authors' checkpoints in a table, all others by the card beside them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from attacks.errors import InputError
from attacks.names import lookup
from model_zoo.architectures.registry import build
from model_zoo.authors import AUTHORS, CONVERTS
from model_zoo.checkpoint import LAST, load_into, load_state_dict, sha256_of, silent, state_digest
from model_zoo.checkpoint_names import unparallel
from model_zoo.defenses.registry import DEFENSES
from model_zoo.download import fetch
from model_zoo.factory import call_factory, code_of, find_factory
from model_zoo.modes import frozen
from model_zoo.probe_digest import probe_digest
from model_zoo.program import KINDS, load_program
from model_zoo.quirks import find_quirks
from model_zoo.randomness import answers_at_random, probe_images
from model_zoo.robustbench_adapter import PAGE, PREFIX, build_robustbench, factory_name, package_version
from model_zoo.stranger import Quirks, Stranger

SHIPPED = Path(__file__).parent / "checkpoints"
"""Where the checkpoints lie that come with the harness."""

DATASETS = ("digits", "mnist", "cifar10")
"""Of the shipped models, in display order."""
OPTIONAL = ("size", "randomized", "quirks", "answers")
"""Fields that a card leaves out where they say nothing, and that are no text."""
OF_LAST = "-last"
"""Behind the name of a model: after the last epoch, where the name alone means the best one."""


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
        code: sha256 of a user's model code, which determines the numbers as the weights do.
        schedule: how it was trained here, in a few words; "" where that is not known.
        convert: a name of `CONVERTS`, where the authors' names of the weights are not ours.
        size: of the checkpoint file in bytes; 0 where nobody wrote it down.
        randomized: whether it answers at random, and so is judged by expectation; of a user's model it is found out.
        quirks: how a user's own model must be run; None for models that are run as they are.
        answers: of a user's own model, a digest of its logits on fixed images; "" where it cannot be asked.
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
    code: str = ""
    schedule: str = ""
    convert: str = ""
    size: int = 0
    randomized: bool = False
    quirks: Quirks | None = None
    answers: str = ""

    @property
    def network(self) -> str:
        """The architecture as the tables show it: without the folder of a user's own file."""
        if self.architecture.startswith(PREFIX):
            return PREFIX + self.name
        place, _, function = self.architecture.rpartition(":")
        return f"{Path(place).name}:{function}" if self.code and place.endswith(".py") else self.architecture

    @property
    def identity(self) -> dict[str, str]:
        """What determines this model's logits."""
        part = {"output": self.quirks.output} if self.quirks is not None and self.quirks.output else {}
        answers = {"answers": self.answers} if self.answers else {}
        return {"checkpoint_sha256": self.sha256, "architecture": self.code or self.architecture, **part, **answers}


def read_card(path: Path) -> ModelSpec:
    """The model that a card describes.

    A card is data: it names an architecture of ours and a file below its checkpoint folder, and never code to import.

    Raises: InputError for a file that is no card, or asks for more than that.
    """
    try:
        content = json.loads(path.read_bytes())
        told = {name: value for name, value in content["model"].items() if name != "published"}  # older cards have it
        schedule = _schedule(content.get("training", {}))
        spec = ModelSpec(**{**told, "suites": tuple(told["suites"]), "schedule": schedule})
        texts = {name: value for name, value in vars(spec).items() if name not in ("suites", *OPTIONAL)}
        for name, value in (*texts.items(), *(("suites", suite) for suite in spec.suites)):
            if not isinstance(value, str) or not value.isprintable():
                raise ValueError(f"{name} that is no line of text")
        if spec.answers or spec.quirks is not None:
            raise ValueError("answers or quirks, which are a user's own model's")
        if spec.code or Path(spec.checkpoint).is_absolute() or ".." in Path(spec.checkpoint).parts:
            raise ValueError("code or a file outside of the checkpoint folder, which a card may not name")
        if not isinstance(told["suites"], list):
            raise ValueError(f"suites that are no list: {told['suites']!r}")
        if not spec.checkpoint:
            raise ValueError("no checkpoint")
        if type(spec.size) is not int or spec.size < 0:
            raise ValueError(f"a size that is no number of bytes: {spec.size!r}")
        if type(spec.randomized) is not bool:
            raise ValueError(f"randomized that is neither true nor false: {spec.randomized!r}")
        return spec
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: expected the card of a trained model, got {error}; remove it or train again"
        ) from None


def _schedule(training: Mapping[str, Any]) -> str:
    """How a card says that its model was trained, in a few words."""
    recipe = training.get("settings", {}).get("recipe", {})
    words = str(training.get("command", "")).split()
    name = words[words.index("--recipe") + 1] if "--recipe" in words else ""
    told = [f"{name} recipe" if name else "", f"{recipe['epochs']} epochs" if "epochs" in recipe else ""]
    return ", ".join(part for part in told if part)


def _shipped() -> list[ModelSpec]:
    """The models that come with the harness, by dataset and in the order of the defenses."""
    defenses = list(DEFENSES)
    specs = [read_card(path) for path in SHIPPED.glob("*/*.json")]
    return sorted(specs, key=lambda spec: (DATASETS.index(spec.dataset), defenses.index(spec.defense), spec.name))


MODELS: Sequence[ModelSpec] = (*_shipped(), *(ModelSpec(**fields) for fields in AUTHORS))


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


def after_last_epoch(name: str, known: Mapping[str, ModelSpec], checkpoint_dir: Path) -> ModelSpec | None:
    """The model NAME-last: NAME by its weights after the last epoch. None where it was not trained in this folder."""
    best = known.get(name.removesuffix(OF_LAST))
    if best is None or not name.endswith(OF_LAST):
        return None
    checkpoint = best.checkpoint.removesuffix(".safetensors") + LAST
    path = checkpoint_dir / checkpoint
    return replace(best, name=name, checkpoint=checkpoint, sha256=sha256_of(path)) if path.is_file() else None


def card(spec: ModelSpec, record: Mapping[str, Any]) -> bytes:
    """The bytes of a model's card: its spec, and how it was trained."""
    fields = {name: value for name, value in asdict(spec).items() if name not in OPTIONAL or value}
    return (json.dumps({"model": fields, "training": dict(record)}, indent=1) + "\n").encode()


def find_checkpoint(spec: ModelSpec, checkpoint_dir: Path) -> Path:
    """The checkpoint's file: in the user's folder, else among those shipped. Raises: InputError if in neither."""
    candidates = [folder / spec.checkpoint for folder in (checkpoint_dir, SHIPPED)]
    there = [path for path in candidates if path.exists()]
    for path in there:  # a user's file of the same name may belong to another model
        if len(there) == 1 or sha256_of(path) == spec.sha256:
            return path
    if there:
        return there[0]
    file = Path(spec.checkpoint)
    named = "get it (its page gives it no file name)" if file.stem == spec.name else f"get {file.name}"
    get = f"{named} from {spec.url}" if spec.url else "train it"
    raise InputError(
        f"model {spec.name}: expected its checkpoint at {candidates[0]}; {get}, or name its folder by --checkpoint-dir"
    )


def obtain_checkpoint(spec: ModelSpec, checkpoint_dir: Path, mirror: Path | None) -> None:
    """See to it that the checkpoint's file is there: from the mirror folder, or from a direct link to the file.

    Raises: InputError where it is nowhere, or another file than expected.
    """
    name = Path(spec.checkpoint).name
    is_mirrored = mirror is not None and (mirror / name).is_file()
    if any((folder / spec.checkpoint).exists() for folder in (checkpoint_dir, SHIPPED)):
        return
    if spec.sha256 and (is_mirrored or spec.url.endswith("/" + name)):
        fetch(spec.url, checkpoint_dir / spec.checkpoint, sha256=spec.sha256, size=spec.size, mirror=mirror)
    find_checkpoint(spec, checkpoint_dir)


def identified(spec: ModelSpec, checkpoint_dir: Path) -> ModelSpec:
    """The spec with the sha256 of the file that is here, where the authors' is not known.

    Raises: InputError for a checkpoint that is missing.
    """
    return spec if spec.sha256 or spec.code else replace(spec, sha256=sha256_of(find_checkpoint(spec, checkpoint_dir)))


def load_model(
    spec: ModelSpec, checkpoint_dir: Path, *, classes: int, tell: Callable[[str], None] = silent
) -> nn.Module:
    """The model with its weights, in eval mode, its parameters frozen, on the CPU.

    Args:
        tell: called with what was done to the file's weights or their names, where it had others than the model.

    Raises: InputError for a checkpoint that is missing, damaged, unsafe, or for another architecture.
    """
    model = _bare_model(spec, checkpoint_dir, classes, tell)
    return model if spec.quirks is None else Stranger(model, spec.quirks)


def _bare_model(spec: ModelSpec, checkpoint_dir: Path, classes: int, tell: Callable[[str], None]) -> nn.Module:
    """The same, but for what wraps a user's own."""
    if spec.architecture.startswith(PREFIX):
        model = build_robustbench(spec.architecture, checkpoint_dir / PREFIX)
    elif spec.code in KINDS:
        model = load_program(Path(spec.checkpoint), spec.code, sha256=spec.sha256)
    elif spec.code:
        model = call_factory(spec.architecture)
        if spec.checkpoint:
            _load_weights(model, Path(spec.checkpoint), spec.sha256, tell=tell)
        if unknown := [name for name, value in model.state_dict().items() if is_lazy(value)]:
            raise InputError(
                f"--model {spec.architecture}: expected weights for all of its layers, got none for {unknown[0]!r}, "
                "which is lazy; give them by --checkpoint, or have the factory load them"
            )
        if not spec.checkpoint and spec.sha256 and state_digest(model.state_dict()) != spec.sha256:
            raise InputError(
                f"--model {spec.architecture}: the factory returns other weights at each call; use --checkpoint"
            )
    else:
        model = build(spec.architecture, classes)
        _load_weights(model, find_checkpoint(spec, checkpoint_dir), spec.sha256, spec.convert, tell=tell)
    return frozen(model)


def robustbench_model(
    name: str, checkpoint_dir: Path, *, dataset: str, norm: str, suite: str, shape: Sequence[int] = ()
) -> ModelSpec:
    """The spec of a RobustBench model, robustbench/ID. Raises: InputError where it cannot be had.

    Args:
        shape: (C, H, W) of the images that it is asked with whether it answers at random; empty for not asking.
    """
    model_id = name.removeprefix(PREFIX)
    code, factory = f"robustbench {package_version()}", factory_name(model_id, dataset, norm)
    spec = ModelSpec(model_id, (suite,), dataset, factory, "", "", "", url=PAGE, code=f"{code} {factory}")
    model = load_model(spec, checkpoint_dir, classes=0)
    is_random = bool(shape) and answers_at_random(model, probe_images(shape))
    return replace(spec, sha256=state_digest(model.state_dict()), randomized=is_random)


def external_model(
    factory: str,
    checkpoint: Path | None,
    *,
    dataset: str,
    suite: str,
    name: str = "",
    shape: Sequence[int] = (),
    output: str = "",
    tell: Callable[[str], None] = silent,
) -> ModelSpec:
    """The spec of a user's own model, which needs no registration.

    Args:
        factory: "PATH.py:FUNCTION" or "package.module:FUNCTION"; called without arguments, it returns a torch module.
        checkpoint: its weights; None if the factory loads them.
        name: in the tables; by default the function's name.
        shape: (C, H, W) of the images that its quirks and randomness are looked for with; empty for not looking.
        output: where in what it returns the logits are: a key, an attribute or an index; "" where it returns them.
        tell: called with what was done to the file's weights or their names, where it had others than the model.

    Raises: InputError for a factory or checkpoint that cannot be used.
    """
    function = factory.rpartition(":")[2]
    code = code_of(*find_factory(factory))
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
    model = _bare_model(spec, Path(), 0, tell)
    if not checkpoint:
        spec = replace(spec, sha256=state_digest(model.state_dict()))
    return observed(spec, model, shape, output)


def observed(spec: ModelSpec, model: nn.Module, shape: Sequence[int], output: str) -> ModelSpec:
    """The spec of a user's own model with what fixed images show: how it must be run, and what it answers.

    Args:
        model: as it was loaded, on the CPU.
        shape, output: as for `external_model`.

    Raises: InputError for a model that returns no logits, or whose answers depend on those before.
    """
    if not shape:
        return replace(spec, quirks=Quirks(output))
    images = probe_images(shape)
    try:
        quirks = find_quirks(model, images, output)
    except InputError as error:
        raise InputError(f"--model {spec.architecture}: {error}") from None
    asked = Stranger(model, quirks)
    return replace(spec, quirks=quirks, randomized=answers_at_random(asked, images), answers=probe_digest(asked, shape))


def _load_weights(
    model: nn.Module, path: Path, sha256: str, convert: str = "", *, tell: Callable[[str], None] = silent
) -> None:
    weights = load_state_dict(path, sha256=sha256 or None, tell=tell)
    done = load_into(model, CONVERTS[convert](unparallel(weights)) if convert else weights, source=str(path))
    if done:
        tell(f"note: {path}: names of weights: {done}")

"""From the spec of a model to its network: registered, downloaded, or the user's own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn

from attacks.errors import InputError
from attacks.input_checks import lazy_weight
from attacks.models.modes import device_of, frozen
from attacks.models.normalisation import Normalisation, put_in_front
from attacks.models.probe_images import probe_images
from attacks.models.quirks import find_quirks
from attacks.models.user_model import Quirks, UserModel
from attacks.randomness import answers_at_random
from model_zoo.about import About
from model_zoo.architectures.registry import build
from model_zoo.authors import CONVERTS, PACKAGES
from model_zoo.files.atomic import sha256_of
from model_zoo.files.download import fetch
from model_zoo.hub import about_published, code_of_published, is_published, load_published, short_name
from model_zoo.masked.registry import MASKS
from model_zoo.mean_logits import MeanLogits
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import SHIPPED
from model_zoo.robustbench_adapter import PAGE, PREFIX, build_robustbench, factory_name, package_version
from model_zoo.user_models.factory import call_factory, call_surrogate, code_of, find_factory
from model_zoo.user_models.probe_digest import probe_digest
from model_zoo.weights.checkpoint import load_into, load_state_dict, silent, state_digest
from model_zoo.weights.program import KINDS, load_program
from model_zoo.weights.weight_keys import unparallel


def find_checkpoint(spec: ModelSpec, checkpoint_dir: Path) -> Path:
    """The checkpoint's file: in the user's folder, else shipped, else in a package. Raises: InputError if in none."""
    candidates = [folder / spec.checkpoint for folder in (checkpoint_dir, *_installed(spec))]
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


def _installed(spec: ModelSpec) -> Sequence[Path]:
    """Where a checkpoint may lie that came with this project, or with a package whose name its own begins with."""
    package = Path(spec.checkpoint).parts[0] if spec.checkpoint else ""
    found = find_spec(package) if package in PACKAGES else None
    return [SHIPPED, *([Path(found.origin).parents[1]] if found and found.origin else [])]


def obtain_checkpoint(spec: ModelSpec, checkpoint_dir: Path, mirror: Path | None) -> None:
    """See to it that the checkpoint's file is there: from the mirror folder, or from a direct link to the file.

    Raises: InputError where it is nowhere, or another file than expected.
    """
    name = Path(spec.checkpoint).name
    is_mirrored = mirror is not None and (mirror / name).is_file()
    if any((folder / spec.checkpoint).exists() for folder in (checkpoint_dir, *_installed(spec))):
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
    if spec.members:
        members = [load_model(member, checkpoint_dir, classes=classes, tell=tell) for member in spec.members]
        return frozen(MeanLogits(members))
    model = _bare_model(spec, checkpoint_dir, classes, tell)
    if spec.surrogate:
        model = frozen(surrogate_of(spec, model))
    return model if spec.quirks is None else UserModel(model, spec.quirks)


def surrogate_of(spec: ModelSpec, model: nn.Module) -> nn.Module:
    """What an adaptive attack on a model searches on, of the model as it is without what wraps a user's own.

    Raises: InputError where the user's function makes none.
    """
    mask = MASKS.get(spec.surrogate)
    return call_surrogate(spec.surrogate, model) if mask is None else mask.surrogate(model)


def _bare_model(spec: ModelSpec, checkpoint_dir: Path, classes: int, tell: Callable[[str], None]) -> nn.Module:
    """The same, but for what wraps a user's own."""
    if spec.architecture.startswith(PREFIX):
        model = build_robustbench(spec.architecture, checkpoint_dir / PREFIX)
    elif spec.code in KINDS:
        model = load_program(Path(spec.checkpoint), spec.code, sha256=spec.sha256)
    elif spec.code:
        if is_published(spec.architecture):
            model = load_published(spec.architecture, classes=classes if spec.checkpoint else 0)
        else:
            model = call_factory(spec.architecture)
        if spec.checkpoint:
            in_front = spec.quirks.normalisation if spec.quirks else None
            _load_weights(model, Path(spec.checkpoint), spec.sha256, normalisation=in_front, tell=tell)
        if unknown := lazy_weight(model):
            raise InputError(
                f"--model {spec.architecture}: expected weights for all of its layers, got none for {unknown!r}, "
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
    spec = ModelSpec(
        model_id,
        suites=(suite,),
        dataset=dataset,
        architecture=factory,
        defense="",
        checkpoint="",
        sha256="",
        url=PAGE,
        code=f"{code} {factory}",
    )
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
    classes: int = 0,
    output: str = "",
    normalisation: Normalisation | None = None,
    tell: Callable[[str], None] = silent,
) -> ModelSpec:
    """The spec of a user's own model, which needs no registration.

    Args:
        factory: "PATH.py:FUNCTION" or "package.module:FUNCTION"; called without arguments, it returns a torch module.
            Or the name of a model that is published: "torchvision:NAME", "timm:NAME", "hf:REPOSITORY".
        checkpoint: its weights; None if the factory loads them, or if they are published.
        name: in the tables; by default the function's name.
        classes: how many logits a published network gets where its weights are the user's.
        shape: (C, H, W) of the images that its quirks and randomness are looked for with; empty for not looking.
        output: where in what it returns the logits are: a key, an attribute or an index; "" where it returns them.
        normalisation: what the user says that its images are normalised by in front of it; None where he says nothing,
            and that of a published model is used.
        tell: called with what was done to the file's weights or their names, where it had others than the model.

    Raises: InputError for a factory or checkpoint that cannot be used.
    """
    about = About()
    if is_published(factory):
        about, function, code = about_published(factory), short_name(factory), code_of_published(factory)
        if about.unlike and normalisation is None:
            raise InputError(
                f"--model {factory}: expected images normalised as (x - mean) / std, channel by channel, got another "
                f"way ({about.unlike}); give --mean and --std, or load the model in a factory of your own"
            )
    else:
        function = factory.rpartition(":")[2]
        code = f"{function}@{code_of(*find_factory(factory)) or factory}"
    in_front, output = put_in_front(normalisation, about.normalisation), output or about.output
    sha256 = sha256_of(checkpoint) if checkpoint and checkpoint.is_file() else ""
    spec = ModelSpec(
        name=name or function,
        suites=(suite,),
        dataset=dataset,
        architecture=factory,
        defense="",
        checkpoint=str(checkpoint) if checkpoint else "",
        sha256=sha256,
        code=code,
        quirks=Quirks(output, in_front),
    )
    model = _bare_model(spec, Path(), classes, tell)
    if not checkpoint:
        spec = replace(spec, sha256=state_digest(model.state_dict()))
    return observed(spec, model, shape, output, normalisation=in_front, named=f"--model {factory}: ")


def observed(
    spec: ModelSpec,
    model: nn.Module,
    shape: Sequence[int],
    output: str,
    *,
    normalisation: Normalisation | None = None,
    named: str = "",
    more_images: Sequence[Tensor] = (),
    tries_layouts: bool = True,
) -> ModelSpec:
    """The spec of a user's own model with what fixed images show: how it must be run, and what it answers.

    Args:
        model: as it was loaded; it keeps what a pass leaves behind in it.
        shape, output, normalisation: as for `external_model`.
        named: stands before what an error says.
        more_images: batches of images (N, C, H, W) that it is asked with, too.
        tries_layouts: as for `find_quirks`.

    Raises: InputError for a model that returns no logits, or whose answers depend on those before.
    """
    if not shape:
        return replace(spec, quirks=Quirks(output, normalisation))
    if normalisation is not None:
        normalisation.require_channels(shape[0])
    device = device_of(model)
    images = probe_images(shape).to(device)
    try:
        quirks = find_quirks(model, images, output, normalisation=normalisation, tries_layouts=tries_layouts)
    except InputError as error:
        raise InputError(f"{named}{error}") from None
    asked = UserModel(model, quirks)
    batches = [images, *(batch.to(device) for batch in more_images)]
    is_random = answers_at_random(asked, *batches)
    return replace(spec, quirks=quirks, randomized=is_random, answers=probe_digest(asked, *batches))


def _load_weights(
    model: nn.Module,
    path: Path,
    sha256: str,
    convert: str = "",
    *,
    normalisation: Normalisation | None = None,
    tell: Callable[[str], None] = silent,
) -> None:
    weights = load_state_dict(path, sha256=sha256 or None, tell=tell)
    weights = CONVERTS[convert](unparallel(weights)) if convert else weights
    done = load_into(model, weights, source=str(path), normalisation=normalisation)
    if done:
        tell(f"note: {path}: names of weights: {done}")

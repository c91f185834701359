"""Models from where they are published: torchvision, timm, and the Hugging Face hub or a folder in its format.

Each comes with the normalisation and the image size of whoever published it. No code of a repository is run, and its
weights are read from safetensors alone; torchvision and timm check and read what they download themselves.
"""

import functools
import importlib
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from attacks.errors import InputError, one_line
from attacks.models.normalisation import Normalisation
from model_zoo.about import About
from model_zoo.architectures.registry import build
from model_zoo.crop import Crop
from model_zoo.files.atomic import sha256_of
from model_zoo.processors import SETTINGS, read_processor
from model_zoo.weights.checkpoint import load_into, load_state_dict

SOURCES = ("torchvision", "timm", "hf")
LIBRARY = "robustness-benchmark"
"""What a repository of a model of ours names as its library."""
CONFIG = "config.json"
FILES = (CONFIG, SETTINGS, "*.safetensors")
WEIGHTS = "model.safetensors"
TRANSFORMING = ("googlenet", "inception_v3")
"""Networks of torchvision that normalise once more, inside."""
INSTALL = "pip install -e '.[hub]'"


def is_published(name: str) -> bool:
    """Whether a name is torchvision:NAME[:WEIGHTS], timm:NAME or hf:REPOSITORY."""
    source, _, rest = name.partition(":")
    return source in SOURCES and bool(rest)


def short_name(name: str) -> str:
    """What such a model is called in the tables: without its source, owner, folder and choice of weights."""
    return name.split(":")[1].rstrip("/").rpartition("/")[2]


def code_of_published(name: str) -> str:
    """What stands for the code of such a model: its package with the version, or the checksum of its config.json."""
    source, _, rest = name.partition(":")
    if source == "hf":
        return f"hf@{sha256_of(_repository(rest, name)[0] / CONFIG)}"
    _package(source, name)
    return f"{source} {metadata.version(source)} {name}"


def about_published(name: str) -> About:
    """What is published of the model of a name, without loading it. Raises: as `load_published`."""
    about: About = _asked(_ABOUT, name)
    return about


def load_published(name: str, *, classes: int = 0) -> nn.Module:
    """The model of a name; it takes normalised images.

    Args:
        classes: how many logits it is to have, where its weights are the user's; 0 for those that are published.

    Raises: InputError where it cannot be had: no such name, no network and not in the cache, or a package is missing.
    """
    model: nn.Module = _asked(_LOADERS, name, classes)
    return model


def _asked(table: Mapping[str, Callable[..., Any]], name: str, *args: Any) -> Any:
    source, _, rest = name.partition(":")
    try:
        return table[source](rest, name, *args)
    except InputError:
        raise
    except Exception as error:  # a download may fail in any of its libraries' ways
        raise InputError(
            f"--model {name}: cannot be had: {_reason(error)}; mend the name, get it where there is a network, "
            "or give your own weights by --checkpoint"
        ) from None


# torchvision


def _about_torchvision(rest: str, name: str) -> About:
    weights = _torchvision_weights(rest, name)
    transform, labels = weights.transforms(), _in_order(weights.meta.get("categories", ()))
    crop = Crop(transform.crop_size[0], transform.resize_size[0], transform.interpolation.value)
    return About(Normalisation(tuple(transform.mean), tuple(transform.std)), crop, labels=labels)


def _load_torchvision(rest: str, name: str, classes: int) -> nn.Module:
    weights, build_model = _torchvision_weights(rest, name), _package("torchvision", name).models.get_model
    network = rest.partition(":")[0]
    settings: dict[str, Any] = {"num_classes": classes} if classes else {"weights": weights}
    if classes and network in TRANSFORMING:
        settings["transform_input"] = True  # as with published weights, from which one's own were trained
    model: nn.Module = build_model(network, **settings)
    return model


def _torchvision_weights(rest: str, name: str) -> Any:
    models = _package("torchvision", name).models
    network, _, wanted = rest.partition(":")
    if network not in models.list_models(models):
        raise InputError(
            f"--model {name}: torchvision has no classifier {network!r}; see torchvision.models.list_models()"
        )
    known = models.get_model_weights(network)
    if wanted and wanted not in known.__members__:
        raise InputError(
            f"--model {name}: expected weights of {network} ({', '.join(w.name for w in known)}), got {wanted}"
        )
    return known[wanted] if wanted else known.DEFAULT


# timm


def _about_timm(rest: str, name: str) -> About:
    timm = _timm_of(rest, name)
    config = timm.models.get_pretrained_cfg(rest).to_dict()
    about = _read_timm(timm.data.resolve_data_config(pretrained_cfg=config))
    return replace(about, labels=_in_order(config.get("label_names") or ()))


def _read_timm(config: Mapping[str, Any]) -> About:
    _, height, size = config["input_size"]
    interpolation = config["interpolation"]
    is_usual = height == size and config.get("crop_mode", "center") == "center"
    crop = Crop(size, int(size / config["crop_pct"]), interpolation) if is_usual else None
    return About(Normalisation(tuple(config["mean"]), tuple(config["std"])), crop, squashing=interpolation)


def _load_timm(rest: str, name: str, classes: int) -> nn.Module:
    timm = _timm_of(rest, name)
    if classes:
        own: nn.Module = timm.create_model(rest, num_classes=classes)
        return own
    config = timm.models.get_pretrained_cfg(rest)
    place = {"file": str(_weights_of_timm(config.hf_hub_id, name))} if config.hf_hub_id else None
    published: nn.Module = timm.create_model(rest, pretrained=True, pretrained_cfg_overlay=place)
    return published


def _weights_of_timm(repository: str, name: str) -> Path:
    """The file of a repository of timm's: by itself timm would ask six times for it where there is no network."""
    file = _snapshot(repository, name) / WEIGHTS
    if not file.is_file():
        raise InputError(f"--model {name}: expected {WEIGHTS} in the repository {repository}, got none; take another")
    return file


def _timm_of(rest: str, name: str) -> Any:
    timm = _package("timm", name)
    if not timm.is_model(rest.partition(".")[0]):
        raise InputError(f"--model {name}: timm has no model {rest!r}; see timm.list_models()")
    return timm


# The Hugging Face hub


def _about_hub(rest: str, name: str) -> About:
    folder, config = _repository(rest, name)
    if config.get("library_name") == LIBRARY:
        return About()
    if "pretrained_cfg" in config:
        about = _read_timm(_package("timm", name).data.resolve_data_config(pretrained_cfg=config["pretrained_cfg"]))
        return replace(about, labels=_in_order(config.get("label_names") or ()))
    about = read_processor(folder, _package("transformers", name).AutoImageProcessor)
    return replace(about, output="logits", labels=_in_order(config.get("id2label") or ()))


def _load_hub(rest: str, name: str, classes: int) -> nn.Module:
    folder, config = _repository(rest, name)
    if config.get("library_name") == LIBRARY:
        return _with_weights(build(config["architecture"], classes or config["classes"]), folder, has_own=bool(classes))
    if "pretrained_cfg" in config:
        create = _package("timm", name).create_model
        model = create(config["architecture"], num_classes=classes or config["num_classes"])
        return _with_weights(model, folder, has_own=bool(classes))
    transformers = _package("transformers", name)
    kind, where = transformers.AutoModelForImageClassification, {"trust_remote_code": False}
    if classes:
        own: nn.Module = kind.from_config(
            transformers.AutoConfig.from_pretrained(str(folder), num_labels=classes, **where), **where
        )
        return own
    loaded: nn.Module = kind.from_pretrained(str(folder), use_safetensors=True, **where)
    return loaded


def _with_weights(model: nn.Module, folder: Path, *, has_own: bool) -> nn.Module:
    """The model with the weights of a repository, unless the user has his own."""
    if not has_own:
        load_into(model, load_state_dict(folder / WEIGHTS), source=str(folder / WEIGHTS))
    return model


def _repository(rest: str, name: str) -> tuple[Path, dict[str, Any]]:
    """The folder of a repository, and its config.json. Raises: InputError for one of a kind that cannot be read."""
    folder = Path(rest) if Path(rest).is_dir() else _snapshot(rest, name)
    file = folder / CONFIG
    try:
        config: dict[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"--model {name}: expected a model's {file}, could not read it ({one_line(error)})") from None
    is_ours = config.get("library_name") == LIBRARY
    if not (is_ours or "pretrained_cfg" in config or "model_type" in config):
        raise InputError(
            f"--model {name}: expected a classifier of this project, timm or transformers, got a config.json of another"
            " kind; load it in a factory of your own: --model PATH.py:FACTORY"
        )
    return folder, config


def _in_order(labels: Mapping[str, str] | Sequence[str]) -> tuple[str, ...]:
    """The names of the logits, which some number."""
    names = [labels[number] for number in sorted(labels, key=int)] if isinstance(labels, Mapping) else labels
    return tuple(map(str, names))


@functools.cache
def _snapshot(repository: str, name: str) -> Path:
    """A repository's files, asked for once: from the hub, or where that cannot be reached from its cache."""
    hub = _package("huggingface_hub", name)
    wanted = {"repo_id": repository, "allow_patterns": list(FILES)}
    try:
        return Path(hub.snapshot_download(**wanted))
    except Exception as error:  # no network, or no such repository
        try:
            return Path(hub.snapshot_download(**wanted, local_files_only=True))
        except Exception:
            raise InputError(
                f"--model {name}: expected a folder, or {repository} on the hub or in its cache, got neither "
                f"({_reason(error)}); mend the name, or get it where there is a network: hf download {repository}"
            ) from None


def _reason(error: BaseException) -> str:
    """What a library says, in one line that is not too long."""
    return textwrap.shorten(one_line(error), 200, placeholder=" ...")


def _package(package: str, name: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise InputError(f"--model {name} needs the package {package}; run: {INSTALL}") from None


_ABOUT = {"torchvision": _about_torchvision, "timm": _about_timm, "hf": _about_hub}
_LOADERS = {"torchvision": _load_torchvision, "timm": _load_timm, "hf": _load_hub}

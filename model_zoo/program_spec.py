"""A model that is a file by itself, as a spec: only where the user says that its code may run."""

from collections.abc import Sequence
from pathlib import Path

from attacks.errors import InputError
from attacks.models.normalisation import Normalisation
from model_zoo.files.atomic import sha256_of
from model_zoo.load import load_model, observed
from model_zoo.model_spec import ModelSpec
from model_zoo.weights.program import kind_of_program


def program_model(
    path: Path,
    *,
    dataset: str,
    suite: str,
    trusts_code: bool,
    shape: Sequence[int] = (),
    output: str = "",
    normalisation: Normalisation | None = None,
) -> ModelSpec:
    """The spec of a model that is a file by itself, of TorchScript's or torch.export's.

    Args:
        trusts_code: whether the user allows such a file, which holds code.
        shape, output, normalisation: as for `external_model`.

    Raises: InputError for any other file, for one that torch cannot load, and where the user does not allow it.
    """
    kind = kind_of_program(path)
    if not path.is_file():
        raise InputError(f"expected a checkpoint at {path.absolute()}, found none; put it there or mend the path")
    if not kind:
        raise InputError(
            f"{path}: --checkpoint needs --model PATH.py:FACTORY, unless the file is a program of torch.jit or "
            "torch.export; for registered models use --checkpoint-dir"
        )
    if not trusts_code:
        raise InputError(
            f"{path}: a program of {kind}, whose code would run with your rights; give --trust-code if you trust it"
        )
    spec = ModelSpec(
        path.stem,
        suites=(suite,),
        dataset=dataset,
        architecture=kind,
        defense="",
        checkpoint=str(path),
        sha256=sha256_of(path),
        code=kind,
    )
    model = load_model(spec, Path(), classes=0)
    return observed(spec, model, shape, output, normalisation=normalisation, named=f"{path}: ")

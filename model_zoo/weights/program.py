"""Models that are files by themselves, TorchScript's and torch.export's: such a file holds code, which is run."""

import hashlib
import io
import warnings
import zipfile
from pathlib import Path
from typing import BinaryIO

import torch
from torch import nn

from attacks.errors import InputError, one_line

TORCHSCRIPT = "torch.jit"
EXPORTED = "torch.export"
KINDS = (TORCHSCRIPT, EXPORTED)


def kind_of_program(file: Path | BinaryIO) -> str:
    """Which of `KINDS` a file is; "" for any other file, and for none. Nothing in it is read but the entries' names."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()} | set(archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return ""
    if "constants.pkl" in names:
        return TORCHSCRIPT
    return EXPORTED if {"models/model.json", "serialized_exported_program.json"} & names else ""


def load_program(path: Path, kind: str, *, sha256: str) -> nn.Module:
    """The model in a file, on the CPU. Its code runs with the user's rights: only for files that the user trusts.

    Args:
        kind: one of `KINDS`.
        sha256: of the file.

    Raises: InputError for another file than expected, and for one that torch cannot load.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected a readable checkpoint, got: {error.strerror}; mend its access") from None
    if (got := hashlib.sha256(data).hexdigest()) != sha256:
        raise InputError(f"{path}: expected sha256 {sha256}, got {got}; it changed during the run: start again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated
            if kind == EXPORTED:
                return torch.export.load(io.BytesIO(data)).module()
            model: nn.Module = torch.jit.load(io.BytesIO(data), map_location="cpu")
            return model
    except Exception as error:  # other versions and damage fail in any of torch's ways
        raise InputError(
            f"{path}: expected a program of {kind} that torch {torch.__version__} loads, got: {one_line(error)}; "
            "save it anew with this version"
        ) from None

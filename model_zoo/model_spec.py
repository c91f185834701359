"""A trained model: which network, whose weights, and what identifies its numbers."""

import json
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from attacks.models.user_model import Quirks
from model_zoo.robustbench_adapter import PREFIX

NORMALISATION = "normalisation"
"""What an identity calls what stands in front of a model."""


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
        code: of a model that is no registered architecture, what determines its numbers beside the weights: a user's
            function and the sha256 of its code, the kind of a program, or the version of a package and its function.
        schedule: how it was trained here, in a few words; "" where that is not known.
        convert: a name of `CONVERTS`, where the authors' names of the weights are not ours.
        size: of the checkpoint file in bytes; 0 where nobody wrote it down.
        randomized: whether it answers at random, and so is judged by expectation; of a user's model it is found out.
        rejects: whether it may reject an image, by one logit more than there are classes: the last one.
        quirks: how a user's own model must be run; None for models that are run as they are.
        answers: of a user's own model, a digest of its logits on fixed images; "" where it cannot be asked.
        surrogate: what makes of the network what an adaptive attack searches on: the name of a mask, or
            PATH.py:FUNCTION; "" for the network itself.
        surrogate_code: what identifies that: mask and version, or the function and the sha256 of its code.
        members: the models whose mean logits this one returns; none for a model of its own.
    """

    name: str
    _: KW_ONLY
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
    rejects: bool = False
    quirks: Quirks | None = None
    answers: str = ""
    surrogate: str = ""
    surrogate_code: str = ""
    members: Sequence["ModelSpec"] = ()

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
        if self.members:
            return {"mean_logits_of": json.dumps([member.identity for member in self.members], sort_keys=True)}
        identity = {"checkpoint_sha256": self.sha256, "architecture": self.code or self.architecture}
        if self.quirks is not None and self.quirks.output:
            identity["output"] = self.quirks.output
        if self.quirks is not None and self.quirks.normalisation is not None:
            identity[NORMALISATION] = str(self.quirks.normalisation)
        if self.quirks is not None and self.quirks.is_flat_at_bounds:
            identity["gradients"] = "inside of [0, 1]"
        if self.rejects:
            identity["rejects"] = "by the last logit"
        if self.surrogate:
            identity["surrogate"] = self.surrogate_code
        return identity | ({"answers": self.answers} if self.answers else {})

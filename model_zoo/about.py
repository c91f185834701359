"""What is published of a model beside its weights."""

from dataclasses import dataclass

from attacks.models.normalisation import Normalisation
from model_zoo.crop import Crop


@dataclass(frozen=True)
class About:
    """What is published of a model beside its weights.

    Args:
        normalisation: of its images; None where it does that itself.
        crop: how its images are prepared; None where nobody says, or where they are squashed to a square.
        output: where in what it returns the logits are.
        squashing: the interpolation of the resizing where there is no crop.
        labels: what its logits are called, in their order; empty where nobody says.
        unlike: what its images go through where that is no normalisation channel by channel, which then must be given.
    """

    normalisation: Normalisation | None = None
    crop: Crop | None = None
    output: str = ""
    squashing: str = "bilinear"
    labels: tuple[str, ...] = ()
    unlike: str = ""

    @property
    def interpolation(self) -> str:
        """Of the resizing, to whatever size."""
        return self.crop.interpolation if self.crop else self.squashing

"""Suite: a benchmark that can be run by name."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

from attacks.registry import by_loss
from attacks.spec import AttackSpec
from attacks.threat_model import ThreatModel

EVERY = ("all",)
"""In `Suite.controls`: all models of the dataset's leaderboard."""
TRANSFERRED = "transfer"
"""In `Suite.fewer`: every attack that is crafted on another model."""


@dataclass(frozen=True)
class Suite:
    """A benchmark that can be run by name.

    Args:
        dataset: its test part is attacked.
        threat: what an attack may change.
        attacks: white-box, in display order.
        transfer: names of the attacks that are also crafted on every other model.
        sources: names of the models that these are crafted on when all models of the suite run; empty for all of them.
        examples: the size of a seeded class-balanced subset of the test images; None for all of them.
        fewer: for an attack that costs much, or "transfer" for all that are crafted on other models, how many of those
            images it sees: under one seed a part of what the others see.
        reading: which iterate its tables show, "any" or "last".
        summary: one line for `list suites`.
        precision: of the search where the user leaves it open, "auto" for the device's fastest.
        adaptive: attacks that are also crafted on a model's own surrogate, of models that have one.
        controls: names of models of the dataset's leaderboard that belong to the suite, too; `EVERY` for all of them.
    """

    name: str
    _: KW_ONLY
    dataset: str
    threat: ThreatModel
    attacks: Sequence[AttackSpec]
    transfer: Sequence[str]
    sources: Sequence[str]
    examples: int | None
    reading: str
    summary: str
    fewer: Mapping[str, int] = field(default_factory=dict)
    precision: str = "auto"
    adaptive: Sequence[AttackSpec] = ()
    controls: Sequence[str] = ()

    def attack(self, name: str) -> AttackSpec | None:
        """The attack of that name, or NAME-LOSS, with this suite's settings; None if it is not part of the suite."""
        found = {attack.name: attack for attack in self.attacks}
        return found.get(name) or by_loss(name, found.get)

    def examples_for(self, attack: str, *, is_transfer: bool) -> int | None:
        """How many of the suite's images an attack sees; None for all of them."""
        limits = [self.fewer.get(name) for name in ((TRANSFERRED, attack) if is_transfer else (attack,))]
        return min((limit for limit in limits if limit is not None), default=None)

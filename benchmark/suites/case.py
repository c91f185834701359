"""One cell of the grid, and its identity."""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from attacks.randomness import JUDGE_DRAWS, query_passes
from attacks.spec import CHUNK_SIZE, AttackSpec
from attacks.threat_model import ThreatModel
from model_zoo.model_spec import ModelSpec

KEY_VERSION = 1
ADAPTIVE = " adaptive"
"""Behind an attack's name in the tables: crafted on the model's own surrogate."""


@dataclass(frozen=True)
class EvalCase:
    """One attack on one model: what determines a number, and the names it is shown under.

    Args:
        suite: the suite that asks for it.
        dataset: the images' dataset.
        images: digest of the images, their labels and indices.
        n: how many images.
        model: judged.
        source: crafted on; the model itself for a white-box case, its surrogate for an adaptive one.
        attack: with all its settings.
        threat: what the attack may change.
        seed: of all draws.
        judge_draws: passes whose mean probabilities decide; 0 for one pass of a model that is not randomised.
        eot: passes that each query of the attack averages.
        origin: digest of the whole that the images were selected from, which no number depends on; "" if not known.
    """

    suite: str
    dataset: str
    images: str
    n: int
    model: ModelSpec
    source: ModelSpec
    attack: AttackSpec
    threat: ThreatModel
    seed: int
    judge_draws: int = 0
    eot: int = 1
    origin: str = ""

    @property
    def is_randomized(self) -> bool:
        """Whether the numbers depend on draws of a model's own, and with them on what shares a batch."""
        return self.model.randomized or self.source.randomized

    @property
    def draws_by_batch(self) -> bool:
        """Whether some draws, the model's or the attack's, are for a batch, which must be a chunk then."""
        return self.is_randomized or self.attack.draws_by_batch

    @property
    def is_transfer(self) -> bool:
        """Whether it is crafted on another model than the one that is judged, a surrogate of its own not counted."""
        return self.source.identity != self.model.identity and not self.is_adaptive

    @property
    def is_adaptive(self) -> bool:
        """Whether it is crafted on the model's own surrogate: white-box, by whoever knows the defense."""
        return bool(self.source.surrogate)

    @property
    def cell(self) -> tuple[str, str, str]:
        """Where it stands in a table: model, attack, source model (empty for white-box)."""
        attack = f"{self.attack.name}{ADAPTIVE if self.is_adaptive else ''}"
        return self.model.name, attack, self.source.name if self.is_transfer else ""


def identity(case: EvalCase) -> dict[str, Any]:
    """All that determines the numbers of a case, and nothing else: no names, device, batch size or paths."""
    by_batch = {"chunk": CHUNK_SIZE} if case.attack.draws_by_batch else {}
    return {
        "key_version": KEY_VERSION,
        **by_batch,
        "model": case.model.identity,
        "source": case.source.identity,
        "attack": case.attack.identity,
        "threat": {"norm": case.threat.norm, "epsilon": case.threat.epsilon},
        "images": case.images,
        "seed": case.seed,
        **({"judge_draws": case.judge_draws} if case.judge_draws else {}),
        **({"eot": case.eot} if case.eot > 1 else {}),
    }


def case_key(case: EvalCase) -> str:
    """32 hexadecimal digits of the sha256 of the case's identity."""
    return key_of(identity(case))


def trajectory_key(case: EvalCase) -> str:
    """The same for all cases that differ in their step count only, which one trajectory serves.

    A randomised model makes new draws at every query, so there each case has a trajectory of its own.
    """
    shared = identity(case)
    if not case.is_randomized:
        shared["attack"].pop("steps", None)
    return key_of(shared)


def with_pass_counts(case: EvalCase, *, judge_draws: int = JUDGE_DRAWS, eot: int | None = None) -> EvalCase:
    """The case with the passes that its models and its attack ask for.

    Args:
        judge_draws: for a randomised model.
        eot: of every query of our own attacks, as for `query_passes`.
    """
    passes = query_passes(case.attack, source_randomized=case.source.randomized, asked=eot)
    return replace(case, judge_draws=judge_draws if case.model.randomized else 0, eot=passes)


def key_of(content: dict[str, Any]) -> str:
    """The key of whatever has this identity."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]

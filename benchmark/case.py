"""One cell of the grid, and its identity."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from attacks.spec import AttackSpec, Proposer
from attacks.threat_model import ThreatModel
from model_zoo.registry import ModelSpec

KEY_VERSION = 1
CHUNK_SIZE = 250
"""Images a chunk. Third-party attacks draw by place in the batch, which is the chunk."""


@dataclass(frozen=True)
class EvalCase:
    """One attack on one model: what determines a number, and the names it is shown under.

    Args:
        suite: the suite that asks for it.
        dataset: the images' dataset.
        images: digest of the images, their labels and indices.
        n: how many images.
        model: judged.
        source: crafted on; the model itself for a white-box case.
        attack: with all its settings.
        threat: what the attack may change.
        seed: of all draws.
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

    @property
    def is_transfer(self) -> bool:
        return self.source.identity != self.model.identity

    @property
    def cell(self) -> tuple[str, str, str]:
        """Where it stands in a table: model, attack, source model (empty for white-box)."""
        return self.model.name, self.attack.name, self.source.name if self.is_transfer else ""


def identity(case: EvalCase) -> dict[str, Any]:
    """All that determines the numbers of a case, and nothing else: no names, device, batch size or paths."""
    by_batch = {"chunk": CHUNK_SIZE} if isinstance(case.attack.method, Proposer) else {}
    return {
        "key_version": KEY_VERSION,
        **by_batch,
        "model": case.model.identity,
        "source": case.source.identity,
        "attack": case.attack.identity,
        "threat": {"norm": case.threat.norm, "epsilon": case.threat.epsilon},
        "images": case.images,
        "seed": case.seed,
    }


def case_key(case: EvalCase) -> str:
    """32 hexadecimal digits of the sha256 of the case's identity."""
    return key_of(identity(case))


def trajectory_key(case: EvalCase) -> str:
    """The same for all cases that differ in their step count only, which one trajectory serves."""
    shared = identity(case)
    shared["attack"].pop("steps", None)
    return key_of(shared)


def key_of(content: dict[str, Any]) -> str:
    """The key of whatever has this identity."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]

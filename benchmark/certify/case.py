"""One model, one method and some images: what is certified, and its identity."""

from dataclasses import dataclass, replace
from typing import Any

from attacks.threat_model import ThreatModel
from benchmark.certify.methods import METHODS, Method
from benchmark.suites.case import key_of
from model_zoo.model_spec import ModelSpec

KEY_VERSION = 1


@dataclass(frozen=True)
class CertifyCase:
    """What determines some certificates, and the names that they are shown under.

    Args:
        suite: whose tables show them.
        images: digest of the images; n: how many; origin: digest of the whole that they are from, "" if not known.
        seed: of all draws; certificates without draws do not depend on it.
    """

    suite: str
    images: str
    n: int
    model: ModelSpec
    method: Method
    threat: ThreatModel
    seed: int
    origin: str = ""

    @property
    def title(self) -> str:
        """As people read it."""
        return f"{self.model.name}: {self.method.name}"

    def by(self, method: str) -> "CertifyCase":
        """The same by a cheaper method, with its usual settings."""
        return replace(self, method=METHODS[method])


def identity(case: CertifyCase) -> dict[str, Any]:
    """All that determines the certificates of a case, and nothing else."""
    drawn = {} if case.method.name in ("ibp", "convex", "crown") else {"seed": case.seed}
    return {
        "certificate_version": KEY_VERSION,
        "model": case.model.identity,
        "method": case.method.identity,
        "after": [METHODS[name].identity for name in case.method.after],
        "threat": {"norm": case.threat.norm, "epsilon": case.threat.epsilon},
        "images": case.images,
        **drawn,
    }


def certify_key(case: CertifyCase) -> str:
    """32 hexadecimal digits of the sha256 of the case's identity."""
    return key_of(identity(case))

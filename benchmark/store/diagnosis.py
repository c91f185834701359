"""What a diagnosis found of one model: a row a check, small enough to stand beside the suite's record."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

PASSES, FAILS, CANNOT_TELL = "passes", "fails", "cannot-tell"
CHECKS = 4
"""The version of the checks: one more with whatever moves an outcome. What an older version found says nothing now."""
DECISIVE = ("black-box", "binarization")
"""Checks that look for what the attack missed: where neither of them passes, nothing was shown."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        check: its name.
        outcome: "passes", "fails" or "cannot-tell"; "" for a row that only informs.
        figure: what was measured; None where nothing could be.
        margin: beyond which the check fails; None where the figure has none.
        p: of the check's test; None for a fact, which needs no test.
        p_holm: the same, corrected for all tests of the model.
        measured: the figure in words.
    """

    check: str
    outcome: str
    figure: float | None
    margin: float | None
    p: float | None
    p_holm: float | None
    measured: str


@dataclass(frozen=True)
class Diagnosis:
    """All that a diagnosis found of one model.

    Args:
        model: its name. network: what the name stood for, as in `ShownCase.networks`.
        attack: the attack that was tested, with the epsilon that it ran at.
        n: how many images.
        forwards, backwards: passes an image that all checks took together.
        findings: a row a check.
        checks: their version.
    """

    model: str
    network: Mapping[str, str]
    attack: str
    n: int
    forwards: float
    backwards: float
    findings: Sequence[Finding]
    checks: int = CHECKS

    @property
    def failed(self) -> list[str]:
        """The checks that fail."""
        return [finding.check for finding in self.findings if finding.outcome == FAILS]

    @property
    def unsure(self) -> list[str]:
        """The checks that cannot tell."""
        return [finding.check for finding in self.findings if finding.outcome == CANNOT_TELL]

    @property
    def beyond(self) -> list[str]:
        """The checks that cannot tell although their figure is beyond the margin: chance may explain it, or may not."""
        return [
            finding.check
            for finding in self.findings
            if finding.outcome == CANNOT_TELL and (finding.figure or 0.0) > (finding.margin or 0.0)
        ]

    @property
    def is_shown(self) -> bool:
        """Whether no check fails, no figure is beyond its margin, and one of the decisive checks passes."""
        passed = [finding.check for finding in self.findings if finding.outcome == PASSES]
        return not (self.failed or self.beyond) and bool(set(passed) & set(DECISIVE))

    @property
    def flags(self) -> list[str]:
        """The flag of a model on which the attack is not shown to work."""
        return [f"not-shown({','.join(self.failed)})"] if self.failed else []

    def to_dict(self) -> dict[str, Any]:
        """As it is written to JSON."""
        return {**asdict(self), "network": dict(self.network)}


def diagnosis_from(record: Mapping[str, Any]) -> Diagnosis:
    """What `Diagnosis.to_dict` wrote. Raises: ValueError, in one line, for anything else."""
    try:
        names = [field.name for field in fields(Diagnosis) if field.name not in ("findings", "checks")]
        findings = tuple(Finding(**finding) for finding in record["findings"])
        plain = {name: record[name] for name in names}
        return Diagnosis(**plain, findings=findings, checks=record.get("checks", 1))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"expected what a diagnosis found, got something else ({type(error).__name__})") from None

"""What papers claim, put to the test on the models that are here. The claims are data (`benchmark/suites/published`).

A figure of a paper needs the paper's network; which of two defenses is the better one can be asked of any.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.report.attack_flags import SIGNIFICANT
from benchmark.report.papers import CLEAN
from benchmark.report.score import Judged, SuiteScores, common_images
from benchmark.report.trainings import trained_as
from benchmark.stats.effects import FEWEST, Effect, Values, effect
from benchmark.stats.sequential import holm
from benchmark.suites.published import CLAIMS, Case, Claim, Measure
from model_zoo.registry import OF_LAST

HOLDS, DOES_NOT, UNDECIDED = "holds", "does not", "undecided"
COLUMNS = (
    *("claim", "paper", "first", "second", "direction", "size", "n", "trainings", "effect", "ci_low", "ci_high"),
    *("published", "p", "p_holm", "verdict", "source", "state", "note"),
)

Found = Mapping[tuple[str, Case], Judged]
"""What each training showed: (its name with the seed, the case)."""


def claim_table(suite: SuiteScores, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """One line for each claim whose models and attacks the suite has.

    Returns: `effect`, the first minus the second in points, with a 95% interval; `trainings` of either side; `p_holm`,
        corrected for all claims of the table; `verdict`, "holds" or "does not" where p_holm is small, and "for these
        models" behind it where it says nothing of other trainings. Where the two sides are of different networks there
        is no line: what sets them apart may be the network.
    """
    found, networks = _found(suite), {entry.model: entry.architecture for entry in suite.entries}
    lines = [line for claim in claims for line in _lines(claim, found, networks)]
    for line, adjusted in zip(lines, holm([line["p"] for line in lines]), strict=True):
        line["p_holm"] = adjusted
        if adjusted >= SIGNIFICANT:
            line["verdict"] = UNDECIDED
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _found(suite: SuiteScores) -> Found:
    found: dict[tuple[str, Case], Judged] = {}
    for entry, judged in zip(suite.entries, suite.judged, strict=True):
        found[entry.model, Case(entry.attack, trained_as(entry.source_model))] = judged
        clean = found.get((entry.model, Case(CLEAN)))
        if clean is None or len(clean.index) < len(judged.index):
            found[entry.model, Case(CLEAN)] = judged.clean
    return found


def _lines(claim: Claim, found: Found, networks: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The line of a claim, where there is one."""
    measures = claim.first, claim.second
    trainings = [_trainings(measure, found) for measure in measures]
    if not all(trainings) or len({networks[name] for names in trainings for name in names}) > 1:
        return
    sides = [
        [[found[name, case] for case in measure.cases] for name in names]
        for measure, names in zip(measures, trainings, strict=True)
    ]
    images = common_images([judged for side in sides for cases in side for judged in cases])
    if not len(images):
        return
    first, second = (np.stack([_values(cases, images) for cases in side]) for side in sides)
    same = [[name.removesuffix(OF_LAST) for name in names] for names in trainings]
    difference = effect(first, second, paired=same[0] == same[1])
    p, verdict = _decide(claim, difference)
    low, high = difference.interval()
    yield {
        "claim": claim.claim,
        "paper": claim.paper,
        "first": claim.first.text,
        "second": claim.second.text,
        "direction": claim.direction,
        "size": claim.size,
        "n": len(images),
        "trainings": " and ".join(str(len(names)) for names in trainings),
        "effect": difference.points,
        "ci_low": low,
        "ci_high": high,
        "published": claim.published,
        "p": p,
        "verdict": verdict,
        "source": claim.source,
        "state": claim.state,
        "note": claim.note,
    }


def _trainings(measure: Measure, found: Found) -> list[str]:
    """The names of the trainings of a measure's model that have all its cases."""
    names = dict.fromkeys(name for name, _ in found if trained_as(name) == measure.model)
    return [name for name in names if all((name, case) in found for case in measure.cases)]


def _values(cases: Sequence[Judged], images: NDArray[np.int64]) -> Values:
    """(N,) of one training: 1 where an image is robust; less 1 where it is under the second case, too."""
    first, *less = (judged.on(images).astype(float) for judged in cases)
    values: Values = first - less[0] if less else first
    return values


def _decide(claim: Claim, difference: Effect) -> tuple[float, str]:
    """The two-sided p-value, and what the claim comes to where that is small."""
    above, below = difference.p_above, difference.p_below
    if claim.direction == "alike":
        p_for = max(above(-claim.size), below(claim.size))
        p_against = min(above(claim.size), below(-claim.size))
    else:
        bound = claim.size if claim.direction == "more" else -claim.size
        p_for, p_against = above(bound), below(bound)
    scope = "" if difference.over_trainings else " for these models"
    return min(1.0, 2 * min(p_for, p_against)), (HOLDS if p_for < p_against else DOES_NOT) + scope


def claims_markdown(table: pd.DataFrame) -> str:
    """The table for people."""
    shown = pd.DataFrame(
        {
            "claim": table["claim"] + " (" + table["paper"] + ")",
            "first": table["first"],
            "second": table["second"],
            "asked": list(map(asked, table["direction"], table["size"])),
            "measured": [
                f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
                for value, low, high in zip(table["effect"], table["ci_low"], table["ci_high"], strict=True)
            ],
            "published": ["" if pd.isna(value) else f"{value:+.2f}" for value in table["published"]],
            "n": table["n"],
            "trainings": table["trainings"],
            "verdict": table["verdict"],
        }
    )
    return shown.to_markdown(index=False, disable_numparse=True)


def asked(direction: str, size: float) -> str:
    """What a claim asks of the difference, in points."""
    if direction == "alike":
        return f"within {size:g}"
    bound = size if direction == "more" else -size
    return f"above {bound:g}"


def claims_note(table: pd.DataFrame) -> str:
    """What the table says, in a line, and how it was decided."""
    counts = {word: int(table["verdict"].str.startswith(word).sum()) for word in (HOLDS, DOES_NOT, UNDECIDED)}
    return (
        f"Of {len(table)} claims that the models here can test, {counts[HOLDS]} hold, {counts[DOES_NOT]} do not, "
        f"{counts[UNDECIDED]} are undecided. Measured: the first minus the second in points, with its 95% interval, "
        "paired image by image. Decided at a family-wise error rate of "
        f"{SIGNIFICANT:.0%} over the table (Holm). With fewer than {FEWEST} trainings a side a verdict is for these "
        "models, and says nothing of other trainings of the same defenses. Both sides are of one network, which is "
        "this project's, not the papers'."
    )

"""Nothing is both certified and broken among all verdicts that are packed in results/."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from attacks.threat_model import ThreatModel
from benchmark.report.certified import noted_certified
from benchmark.store.certificate_store import ContradictionError, proven_images, refuse_contradiction
from benchmark.store.certificates import BROKEN
from benchmark.store.packed import read_packed

RESULTS = Path(__file__).resolve().parents[3] / "results"
Images = NDArray[np.int64]


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, Images, Images]]:
    """What was broken, and which images of that are certified, over all suites: of the same network, in its ball."""
    return list(broken_and_proven())


def broken_and_proven() -> Iterator[tuple[str, Images, Images]]:
    packed = [read_packed(path) for path in sorted((RESULTS / "verdicts").glob("*.json"))]
    certified = [one for suite in packed for one in noted_certified(suite.notes)]
    for suite in packed:
        for case in suite.cases.values():
            entry = case.entry
            network, threat = entry.networks[entry.model], ThreatModel(entry.norm, entry.epsilon)
            proven = proven_images(certified, network, threat, entry.images, entry.origin)
            if len(proven):
                wrong = case.prediction.astype(np.int64) != case.label
                yield f"{suite.suite}: {entry.title}", case.index[~case.robust_any | wrong], proven
    for one in certified:
        threat = ThreatModel(one.norm, one.epsilon)
        proven = proven_images(certified, one.network, threat, one.images, one.origin)
        yield f"{one.model}: a witness of {one.method}", one.index[one.state == BROKEN], proven


def test_no_image_is_certified_and_broken(pairs: list[tuple[str, Images, Images]]) -> None:
    assert sum(len(proven) > 0 for _, _, proven in pairs) >= 30
    for title, broken, proven in pairs:
        refuse_contradiction(title, broken, proven)


def test_an_image_that_is_both_would_be_named(pairs: list[tuple[str, Images, Images]]) -> None:
    title, broken, proven = next(pair for pair in pairs if len(pair[2]))
    with pytest.raises(ContradictionError, match=f"1 images are certified and broken \\(index {proven[0]}\\)"):
        refuse_contradiction(title, np.append(broken, proven[0]), proven)

"""One bar a model: which of its images are certified, which broken, and which are neither."""

from dataclasses import dataclass

import numpy as np

from attacks.threat_model import ThreatModel
from benchmark.report.score import SuiteScores
from benchmark.stats.shares import percent, wilson
from benchmark.store.certificate_store import proven_images, refuse_contradiction
from benchmark.store.certificates import BROKEN


@dataclass(frozen=True)
class Bar:
    """How the images of a model's worst case are divided, in percent: by proof, by attacks, and what neither decides.

    Args:
        certified: proven robust, by any deterministic method; low, high: its 95% Wilson interval.
        broken: misclassified when clean, under an attack, or at a witness of a complete method.
        unknown: the rest.
    """

    certified: float
    low: float
    high: float
    unknown: float
    broken: float


def bars(suite: SuiteScores) -> dict[str, Bar]:
    """By model, how its images are divided; none of models of which nothing is certified.

    Images that no method looked at are not certified.

    Raises: ContradictionError where an image is certified and broken.
    """
    found = {}
    for model in suite.worst:
        entries = [entry for entry in suite.entries if entry.model == model]
        network = entries[0].networks.get(model, {})
        threat = ThreatModel(entries[0].norm, entries[0].epsilon)
        whole = {(entry.images, entry.origin) for entry in entries}  # all selected from the same images
        own = [
            one
            for one in suite.certified
            if one.is_deterministic and dict(one.network) == dict(network) and any(one.is_of(*of) for of in whole)
        ]
        if not any(one.holds_in(threat) for one in own):
            continue
        images, robust = suite.shared[model], suite.worst[model]
        proven = np.unique(np.concatenate([proven_images(own, network, threat, *of) for of in whole]))
        for case, judged in zip(suite.entries, suite.judged, strict=True):
            if case.model == model:
                refuse_contradiction(f"{suite.suite}: {case.title}", judged.index[~judged.robust], proven)
        witnessed = [one.index[one.state == BROKEN] for one in own if one.breaks(threat)]
        broken = ~robust
        for witnesses in witnessed:
            broken = broken | np.isin(images, witnesses)
        refuse_contradiction(f"{suite.suite}: {model}, by a witness", images[broken], proven)
        held = np.isin(images, proven)
        low, high = wilson(int(held.sum()), len(images))
        found[model] = Bar(percent(held), low, high, percent(~held & ~broken), percent(broken))
    return found

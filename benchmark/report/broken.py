"""Which images broke: of each model, which of them, what each was taken for, and under which attack."""

from dataclasses import dataclass

import numpy as np

from benchmark.report.score import SuiteScores

SHOWN = 200
"""Images a model: ten thousand of each would make a page of many megabytes."""


@dataclass(frozen=True)
class BrokenImages:
    """The images of a model's worst case that are right when clean and that some attack broke.

    Args:
        count: how many; n: of how many images.
        listed: of `SHOWN` of them at most, evenly spread: the image's index, its label, the class that it was taken for
            under the first attack that broke it (-1 where that was not stored), this attack's place among the model's
            cases, and how many of these broke it.
    """

    count: int
    n: int
    listed: list[list[int]]


def broken_images(suite: SuiteScores, model: str) -> BrokenImages:
    """What broke of a model's images; its cases are in the order of its rows in `suite.scores`."""
    images = suite.shared[model]
    cases = [judged for entry, judged in zip(suite.entries, suite.judged, strict=True) if entry.model == model]
    held = np.stack([case.on(images) for case in cases])
    where = np.searchsorted(cases[0].index, images)
    label, correct = cases[0].label[where], cases[0].correct[where]
    broken = np.flatnonzero(correct & ~held.all(0))
    spread = np.linspace(0, len(broken) - 1, min(len(broken), SHOWN)).round().astype(int)
    listed = []
    for row in broken[spread]:
        place = int(held[:, row].argmin())
        classes = cases[place].adversarial_class
        there = int(np.searchsorted(cases[place].index, images[row]))
        taken_for = -1 if classes is None else int(classes[there])
        listed.append([int(images[row]), int(label[row]), taken_for, place, int((~held[:, row]).sum())])
    return BrokenImages(len(broken), len(images), listed)

"""Which models a suite has."""

from pathlib import Path

from benchmark.suites.published import FIGURES, ROWS
from benchmark.suites.registry import SUITES
from benchmark.suites.suite import EVERY
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import models_of


def models_for(suite: str, checkpoint_dir: Path) -> dict[str, ModelSpec]:
    """The models of a suite; a paper's suite has those of its rows and sources from its dataset's leaderboard, too.

    So has a suite with controls: some, or all.
    """
    named = {name for row in ROWS if row.suite == suite for name in row.models}
    named |= {name for figure in FIGURES if figure.suite == suite for name in figure.crafted_on}
    lent = models_of(SUITES[suite].dataset, checkpoint_dir) if suite in SUITES else {}
    controls = SUITES[suite].controls if suite in SUITES else ()
    is_paper = suite in SUITES and SUITES[suite].reading == "last"
    return {
        **{
            name: spec
            for name, spec in lent.items()
            if controls == EVERY or name in controls or (is_paper and name in named)
        },
        **models_of(suite, checkpoint_dir),
    }

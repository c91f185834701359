"""Error decomposition and isoperimetry: identities that hold to the image, and masses that have a closed form."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from attacks.errors import InputError
from benchmark.report.score import score_suite
from benchmark.studies import error_decomposition, isoperimetry
from benchmark.studies.points import chance
from benchmark.studies.study import Inputs

RESULTS = Path(__file__).resolve().parents[3] / "results"


def test_robust_error_is_natural_plus_boundary_error_of_every_committed_model() -> None:
    result = error_decomposition.compute(Inputs(results_dir=RESULTS))
    assert result.comparisons[0].measured == 0
    assert result.comparisons[0].n == result.table["n"].sum() > 30_000
    parts = result.table["natural_error"] + result.table["boundary_error"]
    np.testing.assert_allclose(parts, result.table["robust_error"])


def test_an_image_that_is_robust_and_misclassified_breaks_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    read = score_suite

    def forged(*args: object) -> object:
        scores = read(*args)  # type: ignore[arg-type]
        one = next(one for one in scores.judged if not one.correct.all())
        one.robust[np.flatnonzero(~one.correct)] = True
        of_one = [one for entry, one in zip(scores.entries, scores.judged, strict=True) if entry.model == "natural"]
        for other in of_one:
            other.robust[:] = other.robust | ~other.correct
        return scores

    monkeypatch.setattr(error_decomposition, "score_suite", forged)
    assert error_decomposition.compute(Inputs(results_dir=RESULTS)).comparisons[0].measured > 0


def test_a_folder_without_verdicts_is_answered_by_where_there_are_some(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--results-dir results"):
        error_decomposition.compute(Inputs(results_dir=tmp_path))


def test_the_mass_near_a_half_space_of_a_gaussian_is_that_of_its_normal() -> None:
    points, epsilon, d = 2000, 0.2, 9
    result = isoperimetry.compute(Inputs(), d=d, epsilon=epsilon, points=points)
    assert [one.what for one in result.comparisons if not one.agrees] == []
    gaussian = result.table[result.table["power"] == 2].set_index("half_space")["mass"] / 100
    for name, normal in isoperimetry.directions(d).items():
        reach = epsilon * np.abs(normal).sum() / np.linalg.norm(normal)
        expected = float(norm.cdf(reach) - norm.cdf(-reach))
        assert abs(gaussian[name] - expected) < chance(expected, points)

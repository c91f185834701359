"""Every study, in display order."""

from collections.abc import Mapping

from attacks.names import by_name
from benchmark.studies import (
    error_decomposition,
    feature_model,
    gaussian_model,
    isoperimetry,
    min_norm,
    splines,
    tradeoff_example,
    trades_bound,
)
from benchmark.studies.study import Study

STUDIES: Mapping[str, Study] = by_name(
    (
        Study(
            "tradeoff-example",
            compute=tradeoff_example.compute,
            draw=tradeoff_example.draw,
            settings={"epsilon": 0.05, "points": 2000, "radii": 10},
            paper="Zhang et al., arXiv:1901.08573, Section 2",
            summary="the most accurate classifier is the least robust one",
            minutes=1,
        ),
        Study(
            "feature-model",
            compute=feature_model.compute,
            draw=feature_model.draw,
            settings={"p": 0.95, "d": 400, "strength": 3.0, "train": 6000, "test": 10_000},
            paper="Tsipras et al., arXiv:1805.12152, Section 2",
            summary="many weak features are accurate, one strong feature is robust",
            minutes=2,
        ),
        Study(
            "gaussian-model",
            compute=gaussian_model.compute,
            draw=gaussian_model.draw,
            settings={"d": 1000, "epsilon": 0.5, "trials": 16, "test": 1500},
            paper="Schmidt et al., arXiv:1804.11285; Carmon et al., arXiv:1905.13736, Section 3",
            summary="robust accuracy takes more points, and they need no labels",
            minutes=3,
        ),
        Study(
            "splines",
            compute=splines.compute,
            draw=splines.draw,
            settings={"trials": 1000, "noise": 0.01},
            paper="Raghunathan et al., arXiv:2002.10716, Section 6",
            summary="augmentation costs accuracy where points are few, robust self-training does not",
            minutes=1,
        ),
        Study(
            "min-norm",
            compute=min_norm.compute,
            draw=min_norm.draw,
            settings={"problems": 1000, "dimension": 12},
            paper="Raghunathan et al., arXiv:2002.10716, Sections 3 and 5",
            summary="what augmentation costs in linear regression, to the last digit",
            minutes=1,
        ),
        Study(
            "isoperimetry",
            compute=isoperimetry.compute,
            draw=isoperimetry.draw,
            settings={"d": 16, "epsilon": 0.2, "points": 10_000},
            paper="Zhang et al., arXiv:1901.08573, by Barthe 2001",
            summary="no half-space has less mass near its boundary than one of a coordinate",
            minutes=1,
        ),
        Study(
            "error-decomposition",
            compute=error_decomposition.compute,
            draw=error_decomposition.draw,
            settings={},
            paper="Zhang et al., arXiv:1901.08573, Section 2.1",
            summary="robust error is natural error and boundary error, of every model of digits and MNIST",
            minutes=1,
        ),
        Study(
            "trades-bound",
            compute=trades_bound.compute,
            draw=trades_bound.draw,
            settings={"train": 4000, "test": 1000, "epochs": 6, "epsilon": 0.1},
            paper="Zhang et al., arXiv:1901.08573, Section 3 and 5.1",
            summary="both sides of the bound behind TRADES, on MNIST's ones and threes and where it is attained",
            minutes=4,
        ),
    ),
    "study",
)

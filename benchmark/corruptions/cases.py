"""One model under one corruption: a case in a store of its own, in which the corrupted images are the clean ones."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from attacks.oracle import CountingClassifier
from attacks.spec import AttackSpec, ThirdParty
from attacks.threat_model import ThreatModel
from benchmark.corruptions.images import CORRUPTIONS, LIBRARY, SEVERITIES, corrupted
from benchmark.data.split import Split
from benchmark.store.store import Store
from benchmark.suites.case import EvalCase
from benchmark.suites.suite import Suite
from model_zoo.model_spec import ModelSpec

CLEAN = "clean"
"""The case of the images as they are."""
ANY_IMAGE = ThreatModel("Linf", 1.0)
"""A corruption may change each pixel by anything."""


def corruption_store(results_dir: Path) -> Store:
    """The store of what models answer under corruptions, beside that of attacks."""
    return Store(results_dir / "runs" / "corruptions")


def name_of(corruption: str, severity: int) -> str:
    """What a case is called: fog-3."""
    return f"{corruption}-{severity}"


def corruption_and_severity(name: str) -> tuple[str, int]:
    """What a case's name says; severity 0 for the images as they are."""
    corruption, _, severity = name.rpartition("-")
    return (corruption, int(severity)) if corruption else (CLEAN, 0)


def propose(
    classifier: CountingClassifier,  # noqa: ARG001 (it does not look at the model)
    x: Tensor,
    y: Tensor,  # noqa: ARG001
    threat: ThreatModel,  # noqa: ARG001
    *,
    seed: int,
    corruption: str,
    severity: int,
) -> Tensor:
    """What stands for the corruption in a case's identity, with the library's version.

    Args:
        x: (N, C, H, W) in [0, 1]; draws are keyed by the places of the images in x.
    """
    return x if corruption == CLEAN else corrupted(x, torch.arange(len(x)), corruption, severity, seed=seed)


def cases_of(
    suite: Suite, models: Sequence[ModelSpec], split: Split, corruptions: Sequence[str], *, seed: int
) -> list[EvalCase]:
    """Each model on the images as they are, and under each corruption at each severity."""
    named = [(CLEAN, 0), *((name, severity) for name in corruptions for severity in SEVERITIES)]
    return [
        EvalCase(
            suite.name,
            suite.dataset,
            split.digest,
            len(split),
            model,
            model,
            AttackSpec(
                CLEAN if corruption == CLEAN else name_of(corruption, severity),
                algorithm="corruption",
                method=ThirdParty(propose, LIBRARY),
                params={"corruption": corruption, "severity": severity},
                reads_last=False,
                asks_for="labels",
                paper="Hendrycks and Dietterich, arXiv:1903.12261",
            ),
            ANY_IMAGE,
            seed,
        )
        for model in models
        for corruption, severity in named
    ]


def rank_of(case: EvalCase, models: Sequence[str]) -> tuple[int, ...]:
    """Its place in the tables."""
    corruption, severity = corruption_and_severity(case.attack.name)
    number = -1 if corruption == CLEAN else CORRUPTIONS.index(corruption)
    return models.index(case.model.name) + 1, number + 1, severity

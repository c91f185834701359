"""One call from Python: a model and images of the caller's, attacked and judged as the command line does it."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn
from torch.utils.data import Dataset

from attacks.errors import InputError
from attacks.input_checks import check_settings
from attacks.models.normalisation import Given, normalisation_of, put_in_front
from attacks.names import check_name
from attacks.randomness import JUDGE_DRAWS
from attacks.registry import spec_of
from attacks.spec import CHUNK_SIZE, AttackSpec
from attacks.threat_model import ThreatModel
from benchmark.in_memory import SUITE, in_memory
from benchmark.report.attack_flags import flags_of
from benchmark.report.score import judged_from, score
from benchmark.stats.shares import Bools, percent, wilson
from benchmark.store.selection import shown_case
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key, with_pass_counts
from benchmark.sweep.run import run_cases
from model_zoo.files.locks import in_use
from model_zoo.surrogates import surrogate_in_memory

FRAME = (
    *("attack", "n", "clean_acc", "robust_acc", "robust_acc_last", "ci_low", "ci_high"),
    *("forwards_per_image", "backwards_per_image"),
)
"""The columns of `Report.to_frame`."""


@dataclass(frozen=True)
class Report:
    """What some attacks showed of a model; accuracies in percent, intervals are 95% Wilson's.

    Args:
        model: its name; n: how many images.
        clean_acc: over all images.
        robust_acc: by attack, over all images, at every judged point.
        interval: by attack, the ends of the robust accuracy's interval.
        worst_case: the share of images that withstood every attack; worst_case_interval: its interval.
        flags: caveats of these numbers, explained in docs/flags.md.
        verdicts: by attack, image by image, with what each image cost.
        scores: a row an attack, as in scores.csv.
    """

    model: str
    n: int
    clean_acc: float
    robust_acc: Mapping[str, float]
    interval: Mapping[str, tuple[float, float]]
    worst_case: float
    worst_case_interval: tuple[float, float]
    flags: Sequence[str]
    verdicts: Mapping[str, Verdicts] = field(repr=False)
    scores: pd.DataFrame = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """One row an attack: n, clean_acc, robust_acc, robust_acc_last, its interval and passes per image."""
        return self.scores[list(FRAME)].copy()


def evaluate(
    model: nn.Module,
    x: Tensor | Dataset[Any] | Iterable[Any],
    y: Tensor | None = None,
    *,
    epsilon: float,
    attacks: Sequence[str | AttackSpec] = ("autoattack",),
    norm: str = "Linf",
    seed: int = 0,
    index: Tensor | None = None,
    store: str | Path | None = None,
    name: str = "model",
    output: str | int = "",
    mean: Given = None,
    std: Given = None,
    batch_size: int | None = None,
    precision: str = "auto",
    judge_draws: int = JUDGE_DRAWS,
    eot: int | None = None,
    loss: str | None = None,
    adaptive: Callable[[nn.Module], nn.Module] | None = None,
    rejects: bool = False,
    quiet: bool = False,
) -> Report:
    """The robust accuracy of a model under some attacks: same checks, draws and numbers as the command line's.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K); in eval mode, on the device to compute on. It is left as
            it is, but for buffers that a pass changes.
        x: (N, C, H, W) float in [0, 1]; or, without y, a `DataLoader` or a dataset of pairs (image, label).
        y: (N,) labels in [0, K).
        epsilon: of the threat model, in pixel scale: 8 / 255, not 8.
        attacks: names as in `run_benchmark.py list attacks`, or specs of your own settings.
        norm: "Linf", "L2", "L1", "L0", or "spatial-30deg" and its like, as for `ThreatModel`.
        seed: of all draws, which are keyed by an image's index.
        index: (N,) integers, ascending, where each image stands in its dataset, which the command line keys draws by;
            its place in x where it is None.
        store: folder to keep verdicts in; a call that was interrupted goes on from there, and one that was not costs
            nothing again. None to keep nothing.
        name: of the model, in the report and in the store.
        output: where in what the model returns the logits are: a key, an attribute or an index; "" where it returns
            them.
        mean, std: what the model's images are normalised by in front of it, one number a channel in pixel scale; a name
            ("imagenet", "cifar10", "mnist", "none") stands for both. None for nothing.
        batch_size: how many images are attacked at a time; None for as many as fit into memory, 250 at most (1,000 on a
            GPU). On a model that answers at random, whose draws it may change, and by a third-party attack it is never
            more than 250.
        precision: of the search: "auto" for the device's fastest, "fp32" or "bf16". Judging is always in float32.
        judge_draws: passes whose mean probabilities decide on a model that answers at random.
        eot: passes that each query of our own attacks averages; None for 1, and 20 on a model that answers at random.
        loss: what attacks climb in place of their own loss, as in `attacks.losses.LOSSES`; None for their own.
        adaptive: from the model to one that returns logits, too, and has a gradient that leads somewhere: each attack
            is crafted on that, too, and stands beside the others as "NAME adaptive".
        rejects: whether the model may reject an image, by one logit more than there are classes, the last one.
        quiet: no progress bar.

    Raises: InputError for images, labels, a model or settings that no number would mean anything for.

    Example:
        >>> report = evaluate(model, x, y, epsilon=8 / 255, attacks=["pgd-20", "autoattack"], store="runs")
        >>> report.robust_acc["autoattack"], report.worst_case, report.flags
    """
    if isinstance(attacks, (str, AttackSpec)):
        attacks = [attacks]
    specs = [spec_of(attack) for attack in attacks]
    specs = specs if loss is None else [spec.with_loss(loss) for spec in specs]
    if not specs or len({spec.name for spec in specs}) < len(specs):
        raise InputError(
            f"expected one attack at least, each of another name, got {[spec.name for spec in specs]}; "
            "with_settings(name=...) gives a name"
        )
    check_name(name, "name")
    check_settings(
        epsilon=epsilon,
        seed=seed,
        batch_size=CHUNK_SIZE if batch_size is None else batch_size,
        judge_draws=judge_draws,
        eot=eot,
    )
    with in_memory(
        model,
        x,
        y,
        name=name,
        index=index,
        store=store,
        output=str(output),
        normalisation=put_in_front(normalisation_of(mean, std)),
        rejects=rejects,
        batch_size=batch_size,
        precision=precision,
    ) as held:
        spec, split = held.spec, held.split
        where, threat = split.digest, ThreatModel(norm, float(epsilon))
        models: dict[str, nn.Module] = {name: held.model}
        sources = [spec]
        if adaptive is not None:
            source, surrogate = surrogate_in_memory(spec, model, adaptive, held.first_images, classes=split.classes)
            models[source.name] = surrogate
            sources.append(source)
        cases = []
        for source, attack in itertools.product(sources, specs):
            attack.require_norm(norm)
            case = EvalCase(SUITE, SUITE, where, len(split), spec, source, attack, threat, int(seed))
            cases.append(with_pass_counts(case, judge_draws=judge_draws, eot=eot))
        with in_use(held.store.root):
            ranks = [(0, 0, place, 0) for place in range(len(cases))]
            run_cases(cases, ranks, split, held.store, held.hardware, models=models, quiet=quiet)
            return _report(name, cases, held.store)


def _report(name: str, cases: Sequence[EvalCase], store: Store) -> Report:
    verdicts: dict[str, Verdicts] = {}
    flags: dict[str, None] = {}
    rows = []
    for case in cases:
        stored, record = store.read(case_key(case), case.n), store.read_case(case_key(case))
        assert stored is not None
        assert record is not None
        verdicts[case.cell[1]] = stored[0]
        flags.update(dict.fromkeys(record["flags"]))
        rows.append(score(shown_case(case, [0]), stored[0], (), record["zero_gradients"]))
    judged = {(attack, ""): judged_from(found, "any") for attack, found in verdicts.items()}
    flags.update(dict.fromkeys(flags_of(name, judged, {case.attack.name: case.attack for case in cases})))
    worst: Bools = np.all([found.robust_any for found in verdicts.values()], axis=0)
    return Report(
        model=name,
        n=len(worst),
        clean_acc=rows[0]["clean_acc"],
        robust_acc={row["attack"]: row["robust_acc"] for row in rows},
        interval={row["attack"]: (row["ci_low"], row["ci_high"]) for row in rows},
        worst_case=percent(worst),
        worst_case_interval=wilson(int(worst.sum()), len(worst)),
        flags=sorted(flags),
        verdicts=verdicts,
        scores=pd.DataFrame(rows),
    )

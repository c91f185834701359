"""One call from Python: an attack by its name on a model and images of the caller's."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from attacks.attack_batch import AttackOutcome, Setting, run_attack
from attacks.errors import InputError
from attacks.found_points import FoundPoints
from attacks.input_checks import check_data, check_index, check_mode, check_settings, class_count, require_gradient
from attacks.models.modes import device_of, unchanged
from attacks.models.normalisation import Given, Normalisation, normalisation_of, put_in_front
from attacks.models.probe_images import probe_images
from attacks.models.quirks import find_quirks
from attacks.models.user_model import OutputError, UserModel
from attacks.out_of_memory import within_memory
from attacks.precision import full_float32, precision_for
from attacks.randomness import JUDGE_DRAWS, answers_at_random, query_passes
from attacks.registry import spec_of
from attacks.search_model import COMPARED, search_model
from attacks.spec import CHUNK_SIZE, AttackSpec, task_size
from attacks.threat_model import ThreatModel


@dataclass(frozen=True)
class AttackResult:
    """What an attack showed, one row an image, on the device of the images.

    Args:
        x_adv: (N, C, H, W) of each image the first point inside the threat model that is misclassified, else the last
            one that was judged; the image itself where it is misclassified when clean.
        correct: (N,) bool, classified correctly when clean.
        robust: (N,) bool, classified correctly when clean and at every judged point.
        robust_last: (N,) bool, when clean and at the last iterate, as the papers' tables read it; None where the attack
            has no such reading.
        forwards, backwards: (N,) float64 passes spent on each image.
        adversarial_class: (N,) int64, what the model takes x_adv for where an image was broken; -1 where it was not, or
            is misclassified when clean.
        queries: (N,) int64, of an attack without gradients, the model's answers up to and including the one that broke
            the image, or all of them; bad_queries: (N,) int64, those whose class was not the image's. None where they
            are not counted: of an attack with gradients or of several members, by transfer, of a randomised model.
        is_randomized: whether the model answers at random, and so was judged by its mean probabilities.
        is_stateful: whether a pass of the model changes later ones, so that each was made by a copy of the model as it
            was handed over.
    """

    x_adv: Tensor = field(repr=False)
    correct: Tensor = field(repr=False)
    robust: Tensor = field(repr=False)
    robust_last: Tensor | None = field(repr=False)
    forwards: Tensor = field(repr=False)
    backwards: Tensor = field(repr=False)
    adversarial_class: Tensor = field(repr=False)
    queries: Tensor | None = field(repr=False)
    bad_queries: Tensor | None = field(repr=False)
    is_randomized: bool
    is_stateful: bool

    @property
    def clean_acc(self) -> float:
        """In percent."""
        return 100 * self.correct.double().mean().item()

    @property
    def robust_acc(self) -> float:
        """In percent, over all images."""
        return 100 * self.robust.double().mean().item()


def attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    name: str | AttackSpec = "autoattack",
    *,
    epsilon: float,
    norm: str = "Linf",
    seed: int = 0,
    source: nn.Module | None = None,
    index: Tensor | None = None,
    batch_size: int = CHUNK_SIZE,
    precision: str = "auto",
    judge_draws: int = JUDGE_DRAWS,
    eot: int | None = None,
    loss: str | None = None,
    output: str | int = "",
    mean: Given = None,
    std: Given = None,
    rejects: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> AttackResult:
    """Attack a model, and judge what the attack proposes: same draws and numbers as the command line's.

    It raises no flags; `benchmark.evaluate` looks for caveats of the model, too.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K); in eval mode. It is run as `find_quirks` finds that it
            must be, and left as it is: its mode, its parameters, their gradients; buffers that a pass changes stay
            changed.
        x: (N, C, H, W) float in [0, 1], converted to float32; y: (N,) integer labels in [0, K).
        name: as in `run_benchmark.py list attacks`, or a spec of your own settings.
        epsilon: of the threat model, in pixel scale: 8 / 255, not 8.
        norm: "Linf", "L2", "L1", "L0", or "spatial-30deg" and its like, as for `ThreatModel`.
        seed: of all draws, which are keyed by an image's index.
        source: what the attack is crafted on, for transfer or as a surrogate of an adaptive attack; the model itself
            where it is None.
        index: (N,) integers, ascending, where each image stands in its dataset, which the command line keys draws
            by; its place in x where it is None.
        batch_size: how many images are attacked at a time, halved where memory runs out; 250 at most where the model
            answers at random or the attack is a third party's. It changes no draw of the attack's, but may change those
            of a model that answers at random.
        precision: of the search: "auto" for the device's fastest, "fp32" or "bf16". Judging is always in float32.
        judge_draws: passes whose mean probabilities decide on a model that answers at random.
        eot: passes that each query of our own attacks averages; None for 1, and 20 on a source that answers at random.
        loss: what the attack climbs in place of its own loss, as in `attacks.losses.LOSSES`; None for its own.
        output: where in what the model returns the logits are: a key, an attribute or an index; "" where it returns
            them. The source's are looked for there where it returns no tensor.
        mean, std: what the model's images are normalised by in front of it, one number a channel in pixel scale; a name
            ("imagenet", "cifar10", "mnist", "none") stands for both. None for nothing. A source is run as it is.
        rejects: whether the model may reject an image, by one logit more than there are classes, the last one. A clean
            image that is rejected is an error, an attacked one withstands. A source may have that logit, or not.
        progress: called after every step with the number of images that took it.

    Returns: what it showed.
    Raises: InputError for images, labels, a model or settings that no number would mean anything for.

    Example:
        >>> result = attack(model, x, y, "pgd-20", epsilon=8 / 255)
        >>> result.robust_acc, result.x_adv
    """
    spec = spec_of(name)
    spec = spec if loss is None else spec.with_loss(loss)
    check_settings(epsilon=epsilon, seed=seed, batch_size=batch_size, judge_draws=judge_draws, eot=eot)
    threat = ThreatModel(norm, float(epsilon))
    in_front = put_in_front(normalisation_of(mean, std))
    spec.require_norm(norm)
    check_data(x, y)
    x, y, index = x.detach().float(), y.long(), check_index(index, len(x))
    if in_front is not None:
        in_front.require_channels(x.shape[1])
    own = [model] if source is None or source is model else [model, source]
    for one in own:
        check_mode(one)
    device = device_of(*own, default=x.device)
    first_images, probes = x[:COMPARED].to(device), probe_images(x.shape[1:]).to(device)
    dtype = precision_for(precision, x, device)
    with ExitStack() as stack:
        stack.enter_context(full_float32())
        for one in own:
            stack.enter_context(unchanged(one))
        target = _asked(model, probes, str(output), normalisation=in_front)
        crafted_on = target if len(own) == 1 else _asked(own[1], probes, str(output), may_return_logits=True)
        classes = class_count(target, first_images, y, rejects=rejects)
        of_source = class_count(crafted_on, first_images, y)
        if crafted_on is not target and of_source not in {classes, classes + rejects}:
            raise InputError(f"expected a source of {classes} classes, as the model has, got one of {of_source}")
        if spec.needs_gradients:
            require_gradient(crafted_on, first_images)
        randomized = answers_at_random(target, probes, first_images)
        source_randomized = randomized if crafted_on is target else answers_at_random(crafted_on, probes, first_images)
        searched = search_model(crafted_on, first_images, dtype, randomized=source_randomized)
        setting = Setting(
            threat,
            seed,
            batch_size,
            dtype,
            eot=query_passes(spec, source_randomized=source_randomized, asked=eot),
            judge_draws=judge_draws if randomized else 0,
            is_randomized=randomized or source_randomized,
            is_transfer=len(own) > 1,
            rejects=rejects,
        )

        def attack_chunk(chunk: tuple[Tensor, Tensor, Tensor], size: int) -> tuple[list[AttackOutcome], Tensor]:
            points, smaller = FoundPoints(chunk[0]), replace(setting, batch_size=size)
            reached = run_attack(
                spec,
                target,
                crafted_on,
                searched,
                *chunk,
                smaller,
                classes=classes,
                progress=progress,
                observe=points.observe,
            )
            return reached, points.x_adv

        outcomes, found = [], []
        by_batch = spec.draws_by_batch or setting.is_randomized
        at_once = task_size(batch_size, draws_by_batch=by_batch)
        for part_x, part_y, part_index in zip(*(whole.split(at_once) for whole in (x, y, index)), strict=True):
            chunk = part_x.to(device), part_y.to(device), part_index.to(device)
            (reached, x_adv), batch_size = within_memory(spec.name, batch_size, partial(attack_chunk, chunk))
            outcomes += reached
            found.append(x_adv.to(x.device))
    how = {"is_randomized": randomized, "is_stateful": target.quirks.keeps_state}
    return _joined(outcomes, torch.cat(found), y, **how)


def _asked(
    model: nn.Module,
    probes: Tensor,
    output: str,
    *,
    normalisation: Normalisation | None = None,
    may_return_logits: bool = False,
) -> UserModel:
    """A model as it must be run, by what it answers to fixed images."""
    try:
        quirks = find_quirks(model, probes, output, normalisation=normalisation, tries_layouts=False)
        return UserModel(model, quirks)
    except OutputError:
        if not (may_return_logits and output):
            raise
        return UserModel(model, find_quirks(model, probes, tries_layouts=False))


def _joined(outcomes: list[AttackOutcome], x_adv: Tensor, y: Tensor, **how: bool) -> AttackResult:
    """The outcomes of all chunks as one result, where the images are."""

    def whole(parts: Iterable[Tensor]) -> Tensor:
        return torch.cat(list(parts)).to(x_adv.device)

    def if_known(name: str) -> Tensor | None:
        parts = [getattr(outcome, name) for outcome in outcomes]
        return None if any(part is None for part in parts) else whole(parts)

    return AttackResult(
        x_adv,
        correct=whole(outcome.prediction for outcome in outcomes) == y.to(x_adv.device),
        robust=whole(outcome.robust_any for outcome in outcomes),
        robust_last=if_known("robust_last"),
        forwards=whole(outcome.forwards for outcome in outcomes),
        backwards=whole(outcome.backwards for outcome in outcomes),
        adversarial_class=whole(outcome.adversarial_class for outcome in outcomes),
        queries=if_known("queries"),
        bad_queries=if_known("bad_queries"),
        **how,
    )

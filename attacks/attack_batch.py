"""Any attack on a batch of images: what it proposes is judged, image by image."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from attacks import loop
from attacks.ensemble import walk
from attacks.errors import InputError, one_line
from attacks.generators import seeded
from attacks.input_checks import raised_in_backward
from attacks.judge import BatchJudge
from attacks.oracle import CountingClassifier
from attacks.out_of_memory import is_out_of_memory
from attacks.precision import full_float32
from attacks.randomized_loop import run_unjudged
from attacks.rejection import ClassesAlone
from attacks.search_model import InFloat32, precision_of
from attacks.skip_gradient import require_skips, skipping
from attacks.spec import AttackSpec, Ensemble, ThirdParty
from attacks.tally import Reading
from attacks.threat_model import ThreatModel

ROUNDING_REACH = 0.1
"""The logit margin (relative to the logits' spread, as in the DLR loss) below which rounding may mislead a search."""


@dataclass(frozen=True)
class Setting:
    """Under which conditions a batch is attacked.

    Args:
        threat: what the attack may change.
        seed: of the attack's draws, which belong to the images.
        batch_size: how many images are attacked at a time; it changes no draw.
        precision: of the search; judging is always in float32.
        eot: how many passes each query of the attack averages.
        judge_draws: passes whose mean probabilities decide on a randomised target; 0 for one pass of any other.
        is_randomized: whether the target or the source answers at random: its generators are seeded then.
        is_transfer: whether the target is another model than the source.
        rejects: whether the target may reject an image, by one logit more than there are classes.
    """

    threat: ThreatModel
    seed: int
    batch_size: int
    precision: torch.dtype = torch.float32
    eot: int = 1
    judge_draws: int = 0
    is_randomized: bool = False
    is_transfer: bool = False
    rejects: bool = False


@dataclass(frozen=True)
class AttackOutcome:
    """What one step count of an attack showed, one row an image.

    Args:
        prediction: (N,) int64, the target's classes of the clean images.
        robust_any: (N,) bool, correct when clean and at every judged point.
        robust_last: (N,) bool, correct when clean and at the last iterate; None where the attack has no such reading.
        forwards, backwards: (N,) float64 passes spent on each image; none on those that are misclassified when clean.
        adversarial_class: (N,) int64, of the first judged point that is misclassified; -1 where there is none, and
            where the image is misclassified when clean.
        robust_single: (N,) bool, of a randomised target in its first draw alone; None for any other.
        queries, bad_queries: (N,) int64, as in `attacks.tally.Reading`; 0 of images that are misclassified when clean.
    """

    prediction: Tensor
    robust_any: Tensor
    robust_last: Tensor | None
    forwards: Tensor
    backwards: Tensor
    adversarial_class: Tensor
    robust_single: Tensor | None = None
    queries: Tensor | None = None
    bad_queries: Tensor | None = None


def run_attack(
    attack: AttackSpec,
    target: nn.Module,
    source: nn.Module,
    searched: nn.Module,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    setting: Setting,
    *,
    classes: int,
    readings: Sequence[int] = (),
    prediction: Tensor | None = None,
    progress: Callable[[int], None] = lambda _: None,
    observe: Callable[[Tensor, Tensor, Tensor], None] = lambda *_: None,
) -> list[AttackOutcome]:
    """Attack images once, and read the attack at several step counts.

    Args:
        attack: of any kind; a third-party attack, and a randomised model, draws by place in this batch.
        target: judged; source: crafted on; the same module for a white-box attack. In the mode in which they are
            attacked, on the device of the images.
        searched: the source's copy for searching in the setting's precision (`search_model`). An attack that skips
            gradients searches on the source itself, in float32.
        x: (N, C, H, W) in [0, 1]; y: (N,) labels; index: (N,) what draws are keyed by.
        classes: how many, a rejection not counted.
        readings: step counts, ascending, of a recurrence; the attack's own where there are none.
        prediction: (N,) the target's classes of the clean images, where they are known. Those that are wrong are not
            attacked. For a randomised target they are found here, by the judge of its proposals.
        progress: called after every step with the number of images that took it.
        observe: called with all that is judged: rows of the batch (M,), points (M, C, H, W), still correct (M,).

    Returns: an outcome for each reading.
    Raises: InputError for data that the attack, or a member, cannot attack, and for what a library raises.
    """
    attack.require_data(x.shape[1:], classes, setting.threat.norm)
    key = setting.seed, int(index[0])  # a model draws for the batch, so its draws belong to the batch
    judge = BatchJudge(
        target,
        x,
        y,
        setting.threat,
        draws=setting.judge_draws,
        key=key,
        batch_size=setting.batch_size,
        prediction=prediction,
        rejected=classes if setting.rejects else None,
    )
    attacked = (judge.prediction == y).nonzero().squeeze(1)

    def wrong_classes(points: Tensor, position: Tensor) -> Tensor:
        rows = attacked[position]
        wrong = judge.wrong_classes(points, rows)
        observe(rows, setting.threat.images(points, x[rows]), wrong < 0)
        return wrong

    everything = x[attacked], y[attacked], index[attacked]
    skips = attack.skip_gradient < 1
    if skips:
        require_skips(source, x)
    task = _Task(
        setting, source, InFloat32(source) if skips else searched, wrong_classes, *everything, classes, progress
    )
    with (
        full_float32(),
        seeded(*key, "search") if setting.is_randomized else nullcontext(),
        skipping(source, attack.skip_gradient) if skips else nullcontext(),
    ):
        found = _attack(task, attack, readings or [attack.steps])
    return [_outcome(judge, attacked, reading) for reading in found]


@dataclass(frozen=True)
class _Task:
    """Images under attack, all classified correctly when clean, and what decides about them."""

    setting: Setting
    source: nn.Module
    searched: nn.Module
    judge: loop.Judge
    x: Tensor
    y: Tensor
    index: Tensor
    classes: int
    progress: Callable[[int], None]

    def of(self, rows: Tensor) -> "_Task":
        """The same for some of the images."""

        def judge(points: Tensor, position: Tensor) -> Tensor:
            return self.judge(points, rows[position])

        return replace(self, judge=judge, x=self.x[rows], y=self.y[rows], index=self.index[rows])


def _attack(task: _Task, attack: AttackSpec, readings: Sequence[int], *, tracks_closest: bool = False) -> list[Reading]:
    """Readings of the images of a task under an attack of any kind."""
    setting = task.setting
    if isinstance(attack.method, Ensemble):

        def attack_some(member: AttackSpec, rows: Tensor, steps: Sequence[int], tracks_closest: bool) -> list[Reading]:
            return _attack(task.of(rows), member, steps, tracks_closest=tracks_closest)

        # by transfer the source's boundary is not the target's; of a randomised model no least logit margin is known
        screens = not (setting.is_transfer or setting.judge_draws)
        return [walk(attack.method, task.y, attack_some, screens=screens)]
    if isinstance(attack.method, ThirdParty):
        return [_third_party(task, attack, attack.method)]
    if attack.is_targeted:
        attack = replace(attack, restarts=min(attack.restarts, task.classes - 1))
    if setting.judge_draws:
        return [_randomized(task, attack)]
    precision = precision_of(task.searched, setting.precision)
    if attack.tolerates_rounding or precision == torch.float32:
        return _search(task, attack, readings, precision, tracks_closest=tracks_closest)
    return _search_twice(task, attack, readings)


def _search(
    task: _Task, attack: AttackSpec, readings: Sequence[int], precision: torch.dtype, *, tracks_closest: bool
) -> list[Reading]:
    setting = task.setting
    return loop.run(
        attack,
        task.source if precision == torch.float32 else task.searched,
        task.judge,
        task.x,
        task.y,
        task.index,
        setting.threat,
        readings=readings,
        seed=setting.seed,
        batch_size=setting.batch_size,
        judge_every_iterate=setting.is_transfer,
        tracks_closest=tracks_closest,
        precision=precision,
        eot=setting.eot,
        classes=task.classes,
        progress=task.progress,
    )


def _search_twice(task: _Task, attack: AttackSpec, readings: Sequence[int]) -> list[Reading]:
    """Search in the setting's precision, then in float32 for unbroken images within rounding's reach."""
    fast = _search(task, attack, readings, task.setting.precision, tracks_closest=True)
    last = fast[-1]
    assert last.closest is not None
    rows = (last.correct_any & ((last.closest < ROUNDING_REACH) | task.setting.is_transfer)).nonzero().squeeze(1)
    if len(rows):
        exact = _search(task.of(rows), attack, readings, torch.float32, tracks_closest=True)
        for once, again in zip(fast, exact, strict=True):
            assert once.closest is not None
            assert again.closest is not None
            once.adversarial_class[rows] = again.adversarial_class
            once.forwards[rows] += again.forwards
            once.backwards[rows] += again.backwards
            once.closest[rows] = torch.minimum(once.closest[rows], again.closest)
            for counts, own in ((once.queries, again.queries), (once.bad_queries, again.bad_queries)):
                if counts is not None and own is not None:
                    counts[rows] = own  # those of the search that the verdict rests on
    return fast


def _randomized(task: _Task, attack: AttackSpec) -> Reading:
    """A randomised target is shown what each start proposes in the end: its best point and its last iterate."""
    setting = task.setting
    precision = precision_of(task.searched, setting.precision) if attack.tolerates_rounding else torch.float32
    searched = task.source if precision == torch.float32 else task.searched
    wrong, last = torch.full_like(task.y, -1), torch.ones_like(task.y, dtype=torch.bool)
    forwards, backwards = torch.zeros_like(task.y), torch.zeros_like(task.y)
    for restart in range(attack.restarts):
        unbroken = wrong < 0
        rows = (unbroken | last if attack.reads_last else unbroken).nonzero().squeeze(1)
        if not len(rows):
            break
        best_points, last_points = setting.threat.unchanged(task.x), setting.threat.unchanged(task.x)
        for part in rows.split(setting.batch_size):
            found = run_unjudged(
                attack,
                searched,
                task.x[part],
                task.y[part],
                task.index[part],
                setting.threat,
                restart=restart,
                seed=setting.seed,
                precision=precision,
                eot=setting.eot,
                classes=task.classes,
                progress=task.progress,
            )
            best_points[part], last_points[part] = found.best, found.last
            forwards[part] += found.forwards + 2 * setting.judge_draws
            backwards[part] += found.backwards
        at_last = task.judge(last_points[rows], rows)
        last[rows] &= at_last < 0
        for class_there in (at_last, task.judge(best_points[rows], rows)):
            wrong[rows] = torch.where(wrong[rows] < 0, class_there, wrong[rows])
    return Reading(attack.steps, wrong, last if attack.reads_last else None, forwards, backwards)


def _third_party(task: _Task, attack: AttackSpec, method: ThirdParty) -> Reading:
    """A third-party attack on the whole batch, whose passes are shared out evenly: who caused them is not known."""
    x, y = task.x, task.y
    counting = CountingClassifier(ClassesAlone(task.source, task.classes))
    wrong = torch.full_like(y, -1)
    if len(x):
        seed = task.setting.seed + int(task.index[0])  # it draws by place in the batch: no two batches get the same
        try:
            x_adv = method.propose(counting, x, y, task.setting.threat, seed=seed, **attack.propose_params)
        except Exception as error:  # the library's own code may raise what it likes
            if not _is_the_librarys(error):
                raise
            raise InputError(f"attack {attack.name}: {method.library} raised {one_line(error)}") from error
        wrong = task.judge(x_adv, torch.arange(len(x), device=x.device))
    share = 1 / max(len(x), 1)
    passes = torch.full((len(x),), share, dtype=torch.float64, device=x.device)
    judged = max(task.setting.judge_draws, 1)
    queries = None if task.setting.is_transfer or task.setting.judge_draws else counting.queries
    reading = Reading(attack.steps, wrong, None, passes * counting.forwards + judged, passes * counting.backwards)
    return reading if queries is None else replace(reading, queries=queries[:, 0], bad_queries=queries[:, 1])


def _is_the_librarys(error: Exception) -> bool:
    """Whether no other handler knows what to say of an exception: of memory, a device, or a model's backward pass."""
    if isinstance(error, (InputError, OSError, torch.AcceleratorError)) or is_out_of_memory(error):
        return False
    return not raised_in_backward(error)


def _outcome(judge: BatchJudge, attacked: Tensor, reading: Reading) -> AttackOutcome:
    """Images that are misclassified when clean are not robust, and cost nothing."""

    def spread(values: Tensor, dtype: torch.dtype) -> Tensor:
        column = torch.zeros(len(judge.prediction), dtype=dtype, device=attacked.device)
        column[attacked] = values.to(dtype)
        return column

    adversarial_class = torch.full_like(judge.prediction, -1)
    adversarial_class[attacked] = reading.adversarial_class
    return AttackOutcome(
        prediction=judge.prediction,
        robust_any=spread(reading.correct_any, torch.bool),
        robust_last=None if reading.correct_last is None else spread(reading.correct_last, torch.bool),
        forwards=spread(reading.forwards, torch.float64),
        backwards=spread(reading.backwards, torch.float64),
        adversarial_class=adversarial_class,
        robust_single=judge.robust_single,
        queries=None if reading.queries is None else spread(reading.queries, torch.int64),
        bad_queries=None if reading.bad_queries is None else spread(reading.bad_queries, torch.int64),
    )

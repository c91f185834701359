"""What an attack is to the harness: an algorithm of one of three kinds, with its settings and what identifies them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from importlib import metadata
from numbers import Integral
from typing import Any

from torch import Tensor

from attacks.errors import InputError
from attacks.losses import FEATURES, LOSSES, TARGETED_LOSSES, is_loss, is_of_features
from attacks.spatial import family_of

ANY_NORM = ("Linf", "L2")
LENGTH = "iterations"
"""The parameter of a recurrence that is always its number of steps: no spec gives it, each fills it in."""
ANSWERS = ("gradients", "logits", "labels")
"""What an attack may ask a model for, the most first."""
CHUNK_SIZE = 250
"""Images a chunk. Third-party attacks draw by place in the batch, which is the chunk."""


def task_size(batch_size: int, *, draws_by_batch: bool) -> int:
    """How many images are handed to an attack at once: whole chunks, enough for a full batch.

    Args:
        draws_by_batch: whether some draws are for a batch, the attack's or the model's: then it is one chunk.
    """
    return CHUNK_SIZE if draws_by_batch else CHUNK_SIZE * -(-batch_size // CHUNK_SIZE)


@dataclass(frozen=True)
class Recurrence:
    """An attack that the loop advances: `init(x, y, threat, draws) -> state`, `step(oracle, state) -> state`."""

    init: Callable[..., Any]
    step: Callable[..., Any]


@dataclass(frozen=True)
class ThirdParty:
    """A third-party attack, a batch in and a batch out: `propose(classifier, x, y, threat, *, seed) -> x_adv`.

    Its numbers depend on the batch that it is given, and on the version of the library that it comes from.
    `requires(shape, classes, norm)`, which takes the parameters that it names, raises InputError for images (C, H, W),
    a number of classes or a norm that the library fails on.
    """

    propose: Callable[..., Tensor]
    library: str
    requires: Callable[..., None] | None = None


@dataclass(frozen=True)
class Ensemble:
    """Attacks that an image walks through until it is broken.

    Args:
        members: in order, the cheap ones first.
        screening: cheap screening attacks that come before them. The members do not attack an image whose logit margin
            no screening attack brought below `screening_margin`, unless a black-box search brought it lower than the
            attacks with gradients did.
        screening_margin: a logit margin relative to the logits' spread (as in the DLR loss).
    """

    members: Sequence["AttackSpec"]
    screening: Sequence["AttackSpec"] = ()
    screening_margin: float = float("inf")

    def __post_init__(self) -> None:
        if not all(isinstance(attack.method, Recurrence) for attack in self.screening):
            raise InputError("screening attacks must be recurrences: of others the least logit margin is not known")


def require_count(what: str, value: object, *, least: int = 1, most: int = 2**63 - 1) -> None:
    """Raise InputError unless the value is a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        bounds = f"of at least {least}" if most == 2**63 - 1 else f"from {least} to {most}"
        raise InputError(f"{what} must be a whole number {bounds}, got {value!r}")


@dataclass(frozen=True)
class EarlyStopping:
    """When an attack stops on an image that it does not break.

    Args:
        checks: step counts, ascending, at which the least logit margin is compared with that at the check before.
        least_decrease: the share that the least logit margin (relative to the logits' spread, as in the DLR loss) must
            have lost since the check before; else the attack stops on the image.
    """

    checks: tuple[int, ...]
    least_decrease: float

    @property
    def identity(self) -> dict[str, Any]:
        """By the names of stored keys."""
        return {"looks": self.checks, "falls": self.least_decrease}


@dataclass(frozen=True)
class AttackSpec:
    """A named attack configuration.

    Args:
        name: as on the command line and in the tables.
        algorithm: the algorithm's name; with version, parameters, steps and restarts it identifies the numbers.
        method: the algorithm.
        params: keyword arguments of the method's functions, but for `iterations`, which is `steps`.
        steps: of one restart; for a third-party attack what its progress bar weighs.
        restarts: independent starts of each image.
        reads_last: whether the last iterate is read beside any iterate (as the papers' tables do).
        norms: the threat models that it is defined for: norms, or "spatial".
        tolerates_rounding: whether searching in bfloat16 is enough; else images of a small
            logit margin are searched again in float32.
        asks_for: what it asks a model for: "gradients" (and logits), "logits" alone, or "labels" alone.
        eot: how many passes each query averages, unless the case says so; a case's own, and no part of the identity.
        early_stopping: when a recurrence stops on an image before its last step; None for never.
        skip_gradient: what gradients through the residual branches of the searched network are multiplied by, as in
            `attacks.skip_gradient`; 1 leaves them as they are.
        version: raised whenever the attack's numbers may change.
        paper: arXiv number or citation.

    Raises: InputError for a parameter that the method does not take, or lacks.
    """

    name: str
    _: KW_ONLY
    algorithm: str
    method: Recurrence | ThirdParty | Ensemble
    params: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 1
    restarts: int = 1
    reads_last: bool = True
    norms: Sequence[str] = ANY_NORM
    tolerates_rounding: bool = True
    asks_for: str = "gradients"
    early_stopping: EarlyStopping | None = None
    skip_gradient: float = 1.0
    eot: int = 1
    version: int = 1
    paper: str = ""

    def __post_init__(self) -> None:
        if LENGTH in self.params and isinstance(self.method, Recurrence):
            raise InputError(f"attack {self.name}: {LENGTH} is the number of steps; set steps in its place")
        bound = {**self.init_params, **self.step_params, **self.propose_params}
        surplus = set(self.params) - set(bound)
        missing = {name for function in self._functions() for name in _required(function)} - set(self.all_params)
        if surplus or missing:
            raise InputError(f"attack {self.name}: unknown parameters {sorted(surplus)}, missing {sorted(missing)}")
        if self.early_stopping is not None and (
            not isinstance(self.method, Recurrence) or self.reads_last or self.restarts > 1
        ):
            raise InputError(
                f"attack {self.name}: early stopping is for a recurrence of one start that is read by any iterate: an "
                "image on which it stops has no last one"
            )
        for what in ("steps", "restarts", "eot"):
            require_count(f"attack {self.name}: {what}", getattr(self, what))
        if self.asks_for not in ANSWERS:
            raise InputError(f"attack {self.name}: asks_for must be one of {', '.join(ANSWERS)}, got {self.asks_for!r}")
        if not 0 < self.skip_gradient <= 1:
            raise InputError(f"attack {self.name}: skip_gradient must be in (0, 1], got {self.skip_gradient!r}")
        step = self.params.get("rel_step_size", 1.0)
        if isinstance(step, bool) or not isinstance(step, (int, float)) or not 0 < step < float("inf"):
            raise InputError(f"attack {self.name}: rel_step_size must be a positive share of epsilon, got {step!r}")
        if "loss" in self.params and not is_loss(self.params["loss"]):
            raise InputError(
                f"attack {self.name}: loss must be one of {', '.join(LOSSES)}, {FEATURES} or {FEATURES}:LAYER, got "
                f"{self.params['loss']!r}"
            )

    def require_norm(self, norm: str) -> None:
        """Raise InputError for a norm that the attack is not defined for."""
        if family_of(norm) not in self.norms:
            raise InputError(f"attack {self.name} is defined for {', '.join(self.norms)}, got {norm}")

    def require_data(self, shape: Sequence[int], classes: int, norm: str) -> None:
        """Raise InputError for data that it, or one of its members, cannot attack.

        Args:
            shape: (C, H, W) of an image.
        """
        try:
            self._require_data(shape, classes, norm)
        except InputError as error:
            raise InputError(f"attack {self.name}: {error}") from None

    def _require_data(self, shape: Sequence[int], classes: int, norm: str) -> None:
        if isinstance(self.method, Ensemble):
            for part in (*self.method.screening, *self.method.members):
                part._require_data(shape, classes, norm)
        elif isinstance(self.method, ThirdParty) and self.method.requires is not None:
            self.method.requires(shape, classes, norm, **_accepted(self.method.requires, self.params))

    @property
    def all_params(self) -> dict[str, Any]:
        """The parameters, with the number of steps where a recurrence takes it."""
        takes_length = isinstance(self.method, Recurrence) and any(LENGTH in _keywords(f) for f in self._functions())
        return {**self.params, LENGTH: self.steps} if takes_length else dict(self.params)

    @property
    def is_targeted(self) -> bool:
        """Whether each restart aims at another class, so that there are no more restarts than wrong classes."""
        return bool(self.params.get("targeted")) or self.params.get("loss") in TARGETED_LOSSES

    @property
    def init_params(self) -> dict[str, Any]:
        """What a recurrence's `init` takes of the parameters."""
        return _accepted(self.method.init, self.all_params) if isinstance(self.method, Recurrence) else {}

    @property
    def step_params(self) -> dict[str, Any]:
        """What a recurrence's `step` takes of them."""
        return _accepted(self.method.step, self.all_params) if isinstance(self.method, Recurrence) else {}

    @property
    def propose_params(self) -> dict[str, Any]:
        """What a third-party attack's `propose` takes of them."""
        return _accepted(self.method.propose, self.params) if isinstance(self.method, ThirdParty) else {}

    def with_settings(
        self, *, name: str = "", steps: int | None = None, restarts: int | None = None, **params: object
    ) -> "AttackSpec":
        """The same attack by another paper's settings; under another name where one is given.

        Raises: InputError for settings that the attack has not; those of an ensemble are its members'.
        """
        if isinstance(self.method, Ensemble) and (steps is not None or restarts is not None or params):
            raise InputError(f"attack {self.name} is an ensemble: its settings are those of its members; replace these")
        return replace(
            self,
            name=name or self.name,
            steps=self.steps if steps is None else steps,
            restarts=self.restarts if restarts is None else restarts,
            params={**self.params, **params},
        )

    def can_climb(self, loss: str) -> bool:
        """Whether it is a recurrence that climbs a loss, with labels of the kind that this one takes.

        A distance of features has no gradient at the clean image, so that no attack that starts there climbs it.
        """
        own = self.params.get("loss")
        if own is None or not isinstance(self.method, Recurrence) or "kl-divergence" in (own, loss):
            return False
        if is_of_features(loss) and self.params.get("start") == "none":
            return False
        return (own in TARGETED_LOSSES) == (loss in TARGETED_LOSSES)

    def with_loss(self, loss: str) -> "AttackSpec":
        """The same attack climbing another loss, under a name that says so: NAME-LOSS.

        Raises: InputError where it climbs none, or none with such labels.
        """
        if not self.can_climb(loss):
            raise InputError(f"attack {self.name} cannot climb the loss {loss!r}; use pgd-40, or apgd-t for targets")
        return self if self.params["loss"] == loss else self.with_settings(name=f"{self.name}-{loss}", loss=loss)

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the attack's numbers; its name does not."""
        own = {"algorithm": self.algorithm, "version": self.version, "params": dict(sorted(self.all_params.items()))}
        if self.skip_gradient < 1:
            own["skip_gradient"] = self.skip_gradient
        if isinstance(self.method, Ensemble):
            screening = {
                "scouts": [attack.identity for attack in self.method.screening],  # the names are those of stored keys
                "doubt": self.method.screening_margin,
            }
            members = {"members": [member.identity for member in self.method.members]}
            return {**own, **members, **(screening if self.method.screening else {})}
        if isinstance(self.method, ThirdParty):
            return {**own, "library": f"{self.method.library} {metadata.version(self.method.library)}"}
        stopping = {} if self.early_stopping is None else {"patience": self.early_stopping.identity}
        return {**own, "steps": self.steps, "restarts": self.restarts, "reads_last": self.reads_last, **stopping}

    @property
    def is_black_box(self) -> bool:
        """Whether it asks for no gradients."""
        return self.asks_for != "gradients"

    @property
    def needs_gradients(self) -> bool:
        """Whether it, or a part of it, asks for gradients."""
        if isinstance(self.method, Ensemble):
            return any(part.needs_gradients for part in (*self.method.screening, *self.method.members))
        return not self.is_black_box

    @property
    def draws_by_batch(self) -> bool:
        """Whether it, or a part of it, draws by place in the batch that it is given, which must be a chunk then."""
        if isinstance(self.method, Ensemble):
            return any(part.draws_by_batch for part in (*self.method.screening, *self.method.members))
        return isinstance(self.method, ThirdParty)

    @property
    def weight(self) -> int:
        """Steps of one image, at most; for progress bars."""
        if isinstance(self.method, Ensemble):
            return sum(member.weight for member in (*self.method.screening, *self.method.members))
        return self.steps * self.restarts

    def _functions(self) -> Sequence[Callable[..., Any]]:
        if isinstance(self.method, Recurrence):
            return self.method.init, self.method.step
        return (self.method.propose,) if isinstance(self.method, ThirdParty) else ()


def _keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function, but for `seed`, which the caller gives."""
    parameters = inspect.signature(function).parameters.items()
    return {name: p for name, p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and name != "seed"}


def _required(function: Callable[..., Any]) -> set[str]:
    return {name for name, p in _keywords(function).items() if p.default is inspect.Parameter.empty}


def _accepted(function: Callable[..., Any], params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: params[name] for name in _keywords(function) if name in params}

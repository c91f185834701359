"""The settings of a training: the recipe's, with what `--set` says otherwise, and nothing that would have no effect."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace

from attacks.errors import InputError
from attacks.names import lookup
from attacks.number import parse_number
from benchmark.suites.suite import Suite
from model_zoo.architectures.registry import find
from model_zoo.defenses.registry import DefenseSpec
from model_zoo.training.recipe import Recipe, with_overrides
from model_zoo.training.recipes import recipe

SIGNED = ("lam",)
"""Parameters of losses that may be negative."""
TABLES = ("milestones", "param_schedule")
"""Fields of a recipe that one word cannot set."""


def training_settings(
    spec: DefenseSpec, suite: Suite, recipe_name: str, overrides: Sequence[str]
) -> tuple[dict[str, float], Recipe]:
    """The loss's parameters, with the mask's setting, and the recipe; `--set` is applied to whichever has that name.

    Raises: InputError for a setting that is unknown, of another type or without effect, and for a recipe whose epsilon
        is of another norm than the suite's.
    """
    params, settings = dict(spec.all_params), recipe(spec.name, suite.dataset, recipe_name)
    known: Mapping[str, None] = dict.fromkeys([*params, *(f.name for f in fields(Recipe) if f.name not in TABLES)])
    given: dict[str, str] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError(f"--set takes KEY=VALUE, got {override!r}")
        lookup(key, known, "setting")
        given[key] = value  # of several the last
    for key, value in given.items():
        if key in params:
            try:
                params[key] = parse_number(value)
            except ValueError:
                raise InputError(f"--set {key} must be a finite number, got {value!r}") from None
            if params[key] < 0 and key not in SIGNED:
                raise InputError(f"--set {key} must be at least 0, got {value}")
            steady = [entry for entry in settings.param_schedule if entry[0] != key]
            settings = replace(settings, param_schedule=steady)
        else:
            settings = with_overrides(settings, {key: value})
    suite.threat.require_ball(f"training in suite {suite.name}")
    if settings.epsilon is not None and suite.threat.norm != "Linf" and "epsilon" not in given:
        raise InputError(
            f"recipe {recipe_name!r} trains {spec.name} against Linf of size {settings.epsilon:.4g}, and suite "
            f"{suite.name} is of {suite.threat.norm}; give its size by --set epsilon=..., or use --recipe fast"
        )
    for key, reason in _without_effect(spec, settings):
        if key in given:
            raise InputError(f"--set {key} {reason}")
    if spec.mask is not None:
        masked = f"{settings.architecture}+{spec.mask.name}-{params[spec.mask.setting]:g}"
        find(masked)  # which refuses a setting that the mask cannot have
        settings = replace(settings, architecture=masked)
    return params, settings


def _without_effect(spec: DefenseSpec, settings: Recipe) -> Iterator[tuple[str, str]]:
    """Fields of the recipe that would change nothing, each with why, in words that follow the name."""
    if spec.first is None:
        for key in ("source", "pool", "withheld", "source_epochs"):
            yield key, f"is for defenses with a first stage; {spec.name} has none"
    if not spec.uses_pool:
        yield "pool", f"is for defenses that use unlabelled images; {spec.name} does not"
    if not (spec.uses_pool or spec.takes_features):
        yield "withheld", f"has no effect: the first stage of {spec.name} is trained on all images; leave it out"
    if spec.uses_pool and settings.pool:
        yield "withheld", "has no effect beside --set pool: your images are the unlabelled ones; leave one out"
    if spec.takes_features and settings.source:
        yield "withheld", "has no effect beside --set source: no first stage is trained on them; leave one out"
    if settings.source:
        yield "source_epochs", "has no effect beside --set source: no first stage is trained; leave one out"
    if not spec.uses_epsilon:
        yield "warm_up", f"has no effect: {spec.name} trains against no epsilon that could grow; leave it out"
    if spec.bound is not None:
        for key in ("inner_steps", "inner_rel_step_size"):
            yield key, f"has no effect: {spec.name} trains by a bound, without an attack; leave it out"
    if settings.schedule != "cyclic":
        yield "peak", "has no effect without --set schedule=cyclic; add that, or leave it out"

"""One call from Python: is an attack shown to work on a model of the caller's, as the command `diagnose` asks it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from attacks.input_checks import check_settings
from attacks.models.normalisation import Given, normalisation_of, put_in_front
from attacks.names import check_name
from attacks.registry import spec_of
from attacks.spec import CHUNK_SIZE, AttackSpec, require_count
from attacks.threat_model import ThreatModel
from benchmark.diagnose.cases import Plan, how_many, require_testable
from benchmark.diagnose.run import diagnose_models
from benchmark.in_memory import SUITE, in_memory
from benchmark.store.diagnosis import Diagnosis
from benchmark.suites.suite import Suite
from model_zoo.files.locks import in_use
from model_zoo.surrogates import surrogate_in_memory


def diagnose_model(
    model: nn.Module,
    x: Tensor | Dataset[Any] | Iterable[Any],
    y: Tensor | None = None,
    *,
    epsilon: float,
    attack: str | AttackSpec = "pgd-40",
    attack_epsilon: float | None = None,
    norm: str = "Linf",
    seed: int = 0,
    examples: int | None = None,
    hidden: int | None = None,
    index: Tensor | None = None,
    store: str | Path | None = None,
    name: str = "model",
    output: str | int = "",
    mean: Given = None,
    std: Given = None,
    batch_size: int | None = None,
    precision: str = "auto",
    adaptive: Callable[[nn.Module], nn.Module] | None = None,
    rejects: bool = False,
    quiet: bool = False,
) -> Diagnosis:
    """Whether an attack is shown to work on a model: the checks of docs/diagnose.md, without transferred attacks.

    Args:
        model, x, y, norm, seed, index, store, name, output, mean, std, batch_size, precision, rejects, quiet: as for
            `benchmark.evaluate`.
        epsilon: of the threat model, in pixel scale: 8 / 255, not 8.
        attack: the attack under test, one by gradients, by its name or a spec of your own.
        attack_epsilon: that it runs at, where it is not the threat model's.
        examples: how many of the images its runs see, a class-balanced subset; 200 unless chosen.
        hidden: in how many of them the binarization test hides a point, at most; 512 unless chosen, and no more than
            examples where these are.
        adaptive: makes of the model what the attack searches on in its place.

    Returns: a finding a check; `failed` names those that fail.
    Raises: InputError for an attack that nothing can be said about, and what `benchmark.evaluate` refuses.

    Example:
        >>> diagnosis = diagnose_model(model, x, y, epsilon=8 / 255, attack="pgd-40")
        >>> diagnosis.failed, diagnosis.flags
    """
    tested = spec_of(attack)
    tested.require_norm(norm)
    check_name(name, "name")
    for what, count in (("examples", examples), ("hidden", hidden)):
        if count is not None:
            require_count(what, count)
    images, points = how_many(examples, hidden)
    own_epsilon = epsilon if attack_epsilon is None else attack_epsilon
    require_testable(tested, epsilon=float(epsilon), attack_epsilon=float(own_epsilon))
    for radius in (epsilon, own_epsilon):
        check_settings(epsilon=radius, seed=seed, batch_size=batch_size or CHUNK_SIZE, judge_draws=1, eot=None)
    threat = ThreatModel(norm, float(epsilon))
    threat.require_ball("diagnose")
    suite = _suite(threat, [tested])
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
        models, surrogates = {name: held.model}, {}
        if adaptive is not None:
            source, made = surrogate_in_memory(
                held.spec, model, adaptive, held.first_images, classes=held.split.classes
            )
            surrogates[name], models[source.name] = source, made
        plan = Plan(tested, float(own_epsilon), images, (), int(seed), points, surrogates)
        with in_use(held.store.root):
            held.store.open()
            (found,) = diagnose_models(
                suite, [held.spec], plan, held.split, held.store, held.hardware, models_here=models, quiet=quiet
            )
    return found


def _suite(threat: ThreatModel, attacks: Sequence[AttackSpec]) -> Suite:
    """Under which the runs stand in a store."""
    return Suite(
        SUITE,
        dataset=SUITE,
        threat=threat,
        attacks=attacks,
        transfer=(),
        sources=(),
        examples=None,
        reading="any",
        summary="",
    )

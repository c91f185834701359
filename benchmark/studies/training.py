"""What several studies train on: some images, a recipe for digits; a training, and accuracies under PGD-20."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from attacks.api import attack
from attacks.generators import seeded
from attacks.threat_model import ThreatModel
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset
from benchmark.studies.fitting import fit
from benchmark.studies.study import Inputs
from model_zoo.architectures.registry import build
from model_zoo.defenses.registry import defense_spec
from model_zoo.training.recipe import Recipe

EPSILON = 0.2
BATCH = 64
RECIPE = Recipe("digits-cnn", 15, 64, "adam", 1e-3, [(12, 1e-4)], inner_steps=5, inner_rel_step_size=0.5)


@dataclass(frozen=True)
class Accuracies:
    """In percent, over n images: when clean, and under PGD-20."""

    clean: float
    robust: float
    n: int


def some_images(dataset: str, part: str, count: int, inputs: Inputs) -> Split:
    """A balanced subset of a dataset's part, or all where there are fewer."""
    whole = load(dataset, part, data_dir=inputs.data_dir, mirror=inputs.mirror_dir, quiet=inputs.quiet)
    return balanced_subset(whole, min(count, len(whole)), seed=inputs.seed)


def digits_images(part: str, count: int, inputs: Inputs) -> Split:
    """Those of digits."""
    return some_images("digits", part, count, inputs)


def trained(
    defense: str,
    images: Split,
    *,
    seed: int,
    epochs: int,
    architecture: str = RECIPE.architecture,
    epsilon: float = EPSILON,
    norm: str = "Linf",
    recipe: Recipe = RECIPE,
    watch: Callable[[int, nn.Module], None] = lambda _, __: None,
) -> nn.Module:
    """A network trained by a defense; with the same seed every defense starts from the same weights.

    Args:
        epsilon, norm: trained against. watch: called with every epoch and the network, whose mode it may change.
    """
    with seeded(seed, architecture):
        network = build(architecture, images.classes)
    milestones = [(round(start * epochs / recipe.epochs), lr) for start, lr in recipe.milestones]
    chosen = replace(recipe, architecture=architecture, epochs=epochs, milestones=milestones)
    threat = ThreatModel(norm, epsilon)
    return fit(
        network,
        images,
        defense_spec(defense),
        chosen,
        threat,
        seed=seed,
        after_epoch=lambda epoch: watch(epoch, network),
    )


def recipe_of(architecture: str, *, images: int, updates: int, lr: float, warm_up: float = 0.0) -> Recipe:
    """A training of about as many updates whatever the number of images, the last quarter at a tenth of the rate.

    Args:
        warm_up: the share of the training over which epsilon grows to its full size.
    """
    epochs = max(1, round(updates * BATCH / images))
    milestones = [(max(1, round(0.75 * epochs)), lr / 10)] if epochs > 1 else []
    chosen = Recipe(architecture, epochs, BATCH, "adam", lr, milestones, warm_up=warm_up * epochs)
    return replace(chosen, inner_steps=5, inner_rel_step_size=0.5)


def accuracies(
    network: nn.Module, images: Split, *, seed: int, epsilon: float = EPSILON, norm: str = "Linf"
) -> Accuracies:
    """Under PGD-20; the network is left in eval mode."""
    network.eval()
    shown = attack(network, images.x, images.y, "pgd-20", epsilon=epsilon, norm=norm, seed=seed, index=images.index)
    return Accuracies(shown.clean_acc, shown.robust_acc, len(images))

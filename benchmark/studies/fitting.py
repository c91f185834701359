"""Training of a study's own network by a defense, through the trainer's own loop and without checkpoints."""

from collections.abc import Callable

import torch
from torch import nn
from tqdm import tqdm

from attacks.generators import seeded
from attacks.threat_model import ThreatModel
from model_zoo.defenses.registry import DefenseSpec
from model_zoo.training.batches import LabelledImages, all_images
from model_zoo.training.loop import Training, hash_seed, optimizer_of, train_epoch
from model_zoo.training.process_group import alone
from model_zoo.training.recipe import Recipe


def fit(
    model: nn.Module,
    images: LabelledImages,
    defense: DefenseSpec,
    recipe: Recipe,
    threat: ThreatModel,
    *,
    seed: int,
    after_epoch: Callable[[int], None] = lambda _: None,
    **params: float,
) -> nn.Module:
    """Train a network in place, on the CPU, and return it in eval mode.

    Args:
        images: x (N, C, H, W) in [0, 1], y, index.
        recipe: its epochs, optimizer, learning rates, batches and inner attack; its architecture is the network's.
        after_epoch: called with the epoch, counted from 1, when it is over.
        params: of the defense's loss, where they are not its defaults.
    """
    device = torch.device("cpu")
    training = Training(defense, {**defense.params, **params}, recipe, threat, seed, images="")
    data, optimizer = all_images(images, None, device), optimizer_of(recipe, model)
    with tqdm(disable=True) as bar:
        for epoch in range(1, recipe.epochs + 1):
            with seeded(hash_seed(seed, epoch)):
                train_epoch(training, model, optimizer, data, None, epoch, torch.float32, bar, alone(device))
            after_epoch(epoch)
    return model.eval()

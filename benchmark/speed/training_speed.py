"""Training beside the loop that research code usually has: an epoch of Madry's adversarial training."""

from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from attacks.threat_model import ThreatModel
from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from model_zoo.defenses.registry import defense_spec
from model_zoo.training.batches import all_images
from model_zoo.training.loop import Training, optimizer_of, train_epoch
from model_zoo.training.passes import counted
from model_zoo.training.process_group import alone
from model_zoo.training.recipe import Recipe

Epoch = Callable[[nn.Module, Split, ThreatModel, Hardware], int]
"""Trains a copy of a model for an epoch on some images, and counts backward passes."""

RECIPE = Recipe("any", 1, 128, "sgd", 0.01, inner_steps=10, inner_rel_step_size=0.25)
"""10 steps of a quarter of epsilon, as of Madry et al. (arXiv:1706.06083); the network is the model's own."""


def our_epoch(model: nn.Module, split: Split, threat: ThreatModel, hardware: Hardware) -> int:
    """One epoch of the trainer on a copy of the model, in the hardware's precision. Returns: backward passes."""
    trained = deepcopy(model).requires_grad_(True)
    training = Training(defense_spec("madry"), {}, RECIPE, threat, seed=0, images="")
    images = all_images(split, None, hardware.device)
    optimizer = optimizer_of(RECIPE, trained)
    with counted(trained) as passes, tqdm(disable=True) as bar:
        train_epoch(training, trained, optimizer, images, None, 1, hardware.precision, bar, alone(hardware.device))
    return passes.backwards


def usual_epoch(model: nn.Module, split: Split, threat: ThreatModel, hardware: Hardware) -> int:
    """The same in float32, with `loss.backward()` in the inner loop and a `DataLoader`. Returns: backward passes."""
    trained = deepcopy(model).requires_grad_(True)
    optimizer = optimizer_of(RECIPE, trained)
    with counted(trained) as passes:
        for batch in DataLoader(TensorDataset(split.x, split.y), RECIPE.batch_size, shuffle=True):
            x, y = (tensor.to(hardware.device) for tensor in batch)
            x_adv = _usual_attack(trained, x, y, threat)
            trained.train()
            loss = F.cross_entropy(trained(x_adv), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return passes.backwards


def _usual_attack(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """x_adv (N, C, H, W) in [0, 1]. The parameters' gradients are computed at every step, and thrown away."""
    model.eval()
    step = RECIPE.inner_rel_step_size * threat.epsilon
    x_adv = (x + torch.empty_like(x).uniform_(-threat.epsilon, threat.epsilon)).clamp(0, 1)
    for _ in range(RECIPE.inner_steps):
        x_adv = x_adv.detach().requires_grad_(True)
        F.cross_entropy(model(x_adv), y).backward()
        assert x_adv.grad is not None
        x_adv = x_adv.detach() + step * x_adv.grad.sign()
        x_adv = (x + (x_adv - x).clamp(-threat.epsilon, threat.epsilon)).clamp(0, 1)
    return x_adv.detach()

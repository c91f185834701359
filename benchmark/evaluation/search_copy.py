"""What a sweep's attacks search on in place of a model."""

from torch import nn

from attacks.search_model import COMPARED, search_model
from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from model_zoo.model_spec import ModelSpec


def search_copy(spec: ModelSpec, model: nn.Module, split: Split, hardware: Hardware) -> nn.Module:
    """`search_model` of a model that is on the device, compared with it on the first images of a split."""
    first_images = split.x[:COMPARED].to(hardware.device)
    return search_model(model, first_images, hardware.precision, randomized=spec.randomized)

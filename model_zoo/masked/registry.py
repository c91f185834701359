"""The table of masks, in display order, and from an architecture's name to its mask.

Of the sources that masks cite, numbers of equations, algorithms and sections are from memory, and so are the authors'
settings that no program was read for. Read in programs: how thermometer encoding, activation pruning, PixelDefend, Guo
et al.'s transformations and LID were broken (anishathalye/obfuscated-gradients), and LID's minibatch and k
(xingjunm/lid_adversarial_subspace_detection).
"""

from collections.abc import Mapping

from attacks.errors import InputError
from attacks.names import by_name, lookup
from attacks.number import parse_number
from model_zoo.masked import (
    activation_pruning,
    anti_adversary,
    denoiser,
    jpeg,
    lid,
    neighbours,
    projection,
    quilting,
    random_inputs,
    squeezing,
    temperature,
    thermometer,
    total_variation,
    winners_take_all,
)
from model_zoo.masked.mask_spec import MaskSpec
from model_zoo.masked.shielded import with_stand_in

OBFUSCATED = "Athalye et al., arXiv:1802.00420"
TRAMER = "Tramer et al., arXiv:2002.08347"

MASKS: Mapping[str, MaskSpec] = by_name(
    (
        MaskSpec(
            "thermometer",
            build=thermometer.build,
            surrogate=thermometer.surrogate,
            setting="levels",
            settings=(16, 15),
            paper="Buckman et al., ICLR 2018",
            broken_by=f"{OBFUSCATED}: BPDA, a smooth encoding",
            summary="pixels as rows of zeros and ones (BRRG18)",
        ),
        MaskSpec(
            "sap",
            build=activation_pruning.build,
            surrogate=activation_pruning.surrogate,
            setting="percent",
            settings=(100, 200),
            paper="Dhillon et al., arXiv:1803.01442",
            broken_by=f"{OBFUSCATED}: EOT",
            summary="small activations dropped at random (DAL+18)",
            randomized=True,
        ),
        MaskSpec(
            "k-winners",
            build=winners_take_all.build,
            surrogate=winners_take_all.surrogate,
            setting="share",
            settings=(0.1, 0.2),
            paper="Xiao et al., arXiv:1905.10510",
            broken_by=f"{TRAMER}: gradients averaged around the image",
            summary="only the largest activations of a layer pass",
        ),
        MaskSpec(
            "bit-depth",
            build=squeezing.build_bit_depth,
            surrogate=with_stand_in,
            setting="bits",
            settings=(1, 4),
            paper="Xu et al., arXiv:1704.01155",
            broken_by="He et al., arXiv:1706.04701; BPDA with the identity",
            summary="fewer grey levels (feature squeezing)",
        ),
        MaskSpec(
            "median",
            build=squeezing.build_median,
            surrogate=squeezing.median_surrogate,
            setting="size",
            settings=(2, 3),
            paper="Xu et al., arXiv:1704.01155",
            broken_by="He et al., arXiv:1706.04701; BPDA with a soft median",
            summary="a median filter (feature squeezing)",
        ),
        MaskSpec(
            "jpeg",
            build=jpeg.build,
            surrogate=with_stand_in,
            setting="quality",
            settings=(75, 25),
            paper="Guo et al., arXiv:1711.00117",
            broken_by=f"{OBFUSCATED}: BPDA with the identity",
            summary="JPEG compression",
        ),
        MaskSpec(
            "total-variation",
            build=total_variation.build,
            surrogate=total_variation.surrogate,
            setting="weight",
            settings=(0.03, 0.2),
            paper="Guo et al., arXiv:1711.00117",
            broken_by=f"{OBFUSCATED}: BPDA with the identity",
            summary="total variation minimised",
        ),
        MaskSpec(
            "quilting",
            build=quilting.build,
            surrogate=with_stand_in,
            setting="side",
            settings=(2, 4),
            paper="Guo et al., arXiv:1711.00117",
            broken_by=f"{OBFUSCATED}: BPDA with the identity",
            summary="every patch replaced by the nearest one of clean images",
        ),
        MaskSpec(
            "resize-pad",
            build=random_inputs.build_resize_pad,
            surrogate=random_inputs.surrogate,
            setting="smallest",
            settings=(0.9,),
            paper="Xie et al., arXiv:1711.01991",
            broken_by=f"{OBFUSCATED}: EOT",
            summary="images resized and padded at random",
            randomized=True,
        ),
        MaskSpec(
            "noise",
            build=random_inputs.build_noise,
            surrogate=random_inputs.surrogate,
            setting="sigma",
            settings=(0.2, 0.1),
            paper="Liu et al., arXiv:1712.00673",
            broken_by=f"{OBFUSCATED}: EOT",
            summary="Gaussian noise on every pixel, at test too",
            randomized=True,
        ),
        MaskSpec(
            "temperature",
            build=temperature.build,
            surrogate=temperature.surrogate,
            setting="temperature",
            settings=(100, 20),
            paper="Papernot et al., arXiv:1511.04508",
            broken_by="Carlini and Wagner, arXiv:1608.04644: a loss of logits",
            summary="trained at a temperature that is 1 at test: logits that saturate the softmax",
        ),
        MaskSpec(
            "distillation",
            build=temperature.build,
            surrogate=temperature.surrogate,
            setting="temperature",
            settings=(100, 20),
            paper="Papernot et al., arXiv:1511.04508",
            broken_by="Carlini and Wagner, arXiv:1608.04644: a loss of logits",
            summary="trained by a teacher's predictions, both at a temperature that is 1 at test",
        ),
        MaskSpec(
            "denoiser",
            build=denoiser.build,
            surrogate=denoiser.surrogate,
            setting="sigma",
            settings=(0.2, 0.4),
            paper="Song et al., arXiv:1710.10766",
            broken_by=f"{OBFUSCATED}: BPDA",
            summary="a denoising autoencoder in PixelDefend's place",
        ),
        MaskSpec(
            "projection",
            build=projection.build,
            surrogate=projection.surrogate,
            setting="steps",
            settings=(50, 20),
            paper="Samangouei et al., arXiv:1805.06605",
            broken_by=f"{OBFUSCATED}: BPDA with the identity (55 on MNIST at L2 0.005)",
            summary="the nearest image of a small decoder, in Defense-GAN's place",
        ),
        MaskSpec(
            "neighbours",
            build=neighbours.build,
            surrogate=neighbours.surrogate,
            setting="k",
            settings=(50, 5),
            paper="Dubey et al., arXiv:1903.01612",
            broken_by="Sitawarin and Wagner, arXiv:1903.08333: soft votes",
            summary="the mean prediction of the nearest images of the training",
        ),
        MaskSpec(
            "lid",
            build=lid.build,
            surrogate=lid.surrogate,
            setting="k",
            settings=(20, 10),
            paper="Ma et al., arXiv:1801.02613",
            broken_by=f"{OBFUSCATED}: PGD of high confidence (5 on CIFAR-10)",
            summary="images of a high local intrinsic dimension are rejected (MLW+18)",
            rejects=True,
        ),
        MaskSpec(
            "anti-adversary",
            build=anti_adversary.build,
            surrogate=anti_adversary.surrogate,
            setting="steps",
            settings=(2, 4),
            paper="Alfarra et al., arXiv:2103.14347",
            broken_by="Croce et al., arXiv:2202.13711: transfer from the network alone",
            summary="images are moved at test to where the network is surer",
        ),
    ),
    "mask",
)


def find_mask(text: str) -> tuple[MaskSpec, float]:
    """The mask and its setting of NAME-VALUE. Raises: InputError that names what there is."""
    name, _, value = text.rpartition("-")
    if name not in MASKS:
        known = {f"{spec.name}-{setting:g}": None for spec in MASKS.values() for setting in spec.settings}
        lookup(text, known, "part of an architecture's name")
    spec = MASKS[name]
    try:
        setting = parse_number(value)
    except ValueError:
        setting = 0.0
    if not setting > 0:
        raise InputError(f"{text}: expected a positive number of {spec.setting} behind {name}-, got {value!r}")
    return spec, setting


def mask_of(architecture: str) -> MaskSpec | None:
    """The mask that an architecture's name ends with; None where it has none."""
    _, plus, last = architecture.rpartition("+")
    return MASKS.get(last.rpartition("-")[0]) if plus else None

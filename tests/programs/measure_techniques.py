"""Transfer between classical techniques and a network: python tests/programs/measure_techniques.py DATA STEM.

On MNIST, as Papernot, McDaniel and Goodfellow (2016, arXiv:1605.07277): five techniques, each fitted to five disjoint
fifths of the training images. A technique's examples are crafted on each of its models. Each is shown to all models of
the technique (intra); those of the first fifth's models to the first fifth's models of all techniques (cross).
A substitute is a network, or a logistic regression, trained on the labels that a technique's first model gives. Writes
STEM-intra, STEM-cross (both .csv and .svg), STEM-substitutes.csv and STEM.md.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.judge import predict
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset, disjoint_part, holdout
from benchmark.report.tables import write_csv
from model_zoo.architectures.registry import build
from model_zoo.architectures.techniques import DecisionTree, NearestNeighbours
from model_zoo.files.atomic import atomic_write
from model_zoo.training.substitute import Labels, SubstituteRecipe, train_substitute
from model_zoo.training.techniques import TECHNIQUES, fit_technique
from model_zoo.tree_attack import to_another_leaf

NETWORK = "network"
NAMES = (NETWORK, *TECHNIQUES)
PARTS, IMAGES, EPSILON, TEMPERATURE, SEED = 5, 500, 0.3, 3.0, 0
EPOCHS, BATCH, RATE = 4, 128, 1e-3
LABELS = {NETWORK: "strided-cnn", "logistic regression": "mnist-logistic"}
"""What a substitute may be."""
Models = Mapping[str, list[nn.Module]]

LEGEND = (
    "Of the test images that the model attacked (column) classifies correctly when clean, the share in percent that it "
    f"misclassifies once they are changed on a model (row); {IMAGES} test images of MNIST, balanced, seed {SEED}. "
    f"FGSM of Linf {EPSILON} by the cross-entropy of the row's logits (network, logistic regression, SVM) and of the "
    f"smoothed vote of all training images (nearest neighbours, temperature {TEMPERATURE:g} on squared distances); to "
    "another leaf, with no limit but [0, 1] (decision tree). Each model is fitted to a fifth of the training images."
)


def main() -> None:
    data, stem = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    train, test = (load("mnist", part, data_dir=data, quiet=True) for part in ("train", "test"))
    images = balanced_subset(test, IMAGES, seed=SEED)
    models = {name: [fitted(name, disjoint_part(train, part, PARTS)) for part in range(1, PARTS + 1)] for name in NAMES}
    crafted = {name: [examples(model, images) for model in own] for name, own in models.items()}
    text = [_about(models, crafted, images)]
    rows = []
    for name, own in models.items():
        for source, x_adv in enumerate(crafted[name]):
            rows += [
                {
                    "technique": name,
                    "source": source + 1,
                    "target": target + 1,
                    "misclassified": share(model, x_adv, images),
                }
                for target, model in enumerate(own)
            ]
    intra = pd.DataFrame(rows)
    write_csv(Path(f"{stem}-intra.csv"), intra.round(2))
    grids = {str(name): grid_of(own) for name, own in intra.groupby("technique", sort=False)}
    draw(grids, Path(f"{stem}-intra.svg"), [str(part) for part in range(1, PARTS + 1)])
    text.append("## Within a technique\n\n" + intra_table(grids))

    cross = pd.DataFrame(
        [[share(models[target][0], crafted[source][0], images) for target in NAMES] for source in NAMES],
        index=pd.Index(NAMES, name="crafted on"),
        columns=list(NAMES),
    )
    write_csv(Path(f"{stem}-cross.csv"), cross.round(2).reset_index())
    draw({"across techniques": cross.to_numpy()}, Path(f"{stem}-cross.svg"), list(NAMES))
    text.append("## Across techniques\n\n" + cross.round(1).reset_index().to_markdown(index=False))

    found = substitutes(models, holdout(train, 1000, seed=SEED)[1], images)
    write_csv(Path(f"{stem}-substitutes.csv"), found.round(2))
    text.append("## Substitutes\n\n" + found.round(1).to_markdown(index=False))
    atomic_write(Path(f"{stem}.md"), ("\n\n".join([*text, LEGEND]) + "\n").encode())


def grid_of(rows: pd.DataFrame) -> NDArray[np.float64]:
    """(PARTS, PARTS): source, target."""
    return rows.pivot(index="source", columns="target", values="misclassified").to_numpy(np.float64)


def fitted(name: str, part: Split) -> nn.Module:
    """A technique, or the network, fitted to images."""
    print(f"fitting {name} to {len(part)} images", flush=True)
    if name == NETWORK:
        return trained(part)
    model = build(TECHNIQUES[name].architecture("mnist", len(part))).eval()
    model.load_state_dict(dict(fit_technique(name, part.x, part.y, classes=part.classes, seed=SEED)))
    return model.requires_grad_(False)


def trained(part: Split) -> nn.Module:
    torch.manual_seed(SEED)
    model, generator = build("strided-cnn"), torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(part), generator=generator).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(part.x[rows]), part.y[rows]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


def examples(model: nn.Module, images: Split) -> Tensor:
    """The test images (N, C, H, W), changed by the attack of the model's technique."""
    if isinstance(model, DecisionTree):
        return to_another_leaf(model, images.x, images.y)
    if isinstance(model, NearestNeighbours):
        return fgsm(lambda x: model.smoothed(x, temperature=TEMPERATURE), images)
    return fgsm(model, images)


def fgsm(logits: Callable[[Tensor], Tensor], images: Split) -> Tensor:
    """One step of EPSILON along the sign of the cross-entropy's gradient. Source: arXiv:1412.6572."""
    moved = []
    for x, y in zip(images.x.split(100), images.y.split(100), strict=True):
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits(x), y, reduction="sum"), x)
        moved.append((x.detach() + EPSILON * gradient.sign()).clamp(0, 1))
    return torch.cat(moved)


@functools.cache
def right(model: nn.Module, images: Split) -> Tensor:
    """(N,) bool: the images that a model classifies correctly when clean."""
    return predict(model, images.x, batch_size=100) == images.y


def share(model: nn.Module, x_adv: Tensor, images: Split) -> float:
    """Of the images that a model has right when clean, in percent, those that it has wrong once they are changed."""
    clean = right(model, images)
    wrong = predict(model, x_adv, batch_size=100) != images.y
    return 100 * (wrong & clean).sum().item() / clean.sum().item()


def labels_of(model: nn.Module) -> Labels:
    """All that is asked of a model."""
    return lambda x: predict(model, x, batch_size=100)


def substitutes(models: Models, held_out: Split, images: Split) -> pd.DataFrame:
    """For each technique's first model, substitutes of each kind: labels, agreement, and what their examples break."""
    rows = []
    first = balanced_subset(held_out, 150, seed=SEED)
    for oracle in NAMES:
        model = models[oracle][0]
        for kind, architecture in LABELS.items():
            print(f"a {kind} as substitute of {oracle}", flush=True)
            torch.manual_seed(SEED)
            own = build(architecture)
            x, _ = train_substitute(own, labels_of(model), first.x, SubstituteRecipe(), seed=SEED)
            own.eval().requires_grad_(False)
            agreement = (
                100
                * (predict(own, images.x, batch_size=100) == predict(model, images.x, batch_size=100))
                .double()
                .mean()
                .item()
            )
            rows.append(
                {
                    "oracle": oracle,
                    "substitute": kind,
                    "labels": len(x),
                    "agreement": agreement,
                    "misclassified by the oracle": share(model, fgsm(own, images), images),
                }
            )
    return pd.DataFrame(rows)


def intra_table(grids: Mapping[str, NDArray[np.float64]]) -> str:
    """Of each technique, the mean over models attacked by their own examples, and over pairs of two models."""
    own = np.eye(PARTS, dtype=bool)
    rows = [
        {
            "technique": name,
            "on itself": grid[own].mean(),
            "on another model": grid[~own].mean(),
            "least": grid[~own].min(),
            "most": grid[~own].max(),
        }
        for name, grid in grids.items()
    ]
    return pd.DataFrame(rows).round(1).to_markdown(index=False)


def _about(models: Models, crafted: Mapping[str, list[Tensor]], images: Split) -> str:
    rows = []
    for name, own in models.items():
        clean = [100 * (predict(model, images.x, batch_size=100) == images.y).double().mean().item() for model in own]
        delta = torch.cat(crafted[name]) - images.x.repeat(PARTS, 1, 1, 1)
        changed = (delta != 0).flatten(1).sum(1).double().mean().item()
        rows.append(
            {
                "technique": name,
                "clean, mean": np.mean(clean),
                "least": min(clean),
                "pixels changed": changed,
                "mean L2": delta.flatten(1).norm(dim=1).mean().item(),
            }
        )
    return "## The models and what was changed\n\n" + pd.DataFrame(rows).round(2).to_markdown(index=False)


def draw(grids: Mapping[str, NDArray[np.float64]], path: Path, names: list[str]) -> None:
    """Heat maps with their numbers in them, rows crafted on, columns attacked."""
    with matplotlib.rc_context({"svg.hashsalt": "robustness", "font.size": 8, "figure.constrained_layout.use": True}):
        figure = Figure(figsize=(2.9 * len(grids) if len(grids) > 1 else 4.6, 3.0 if len(grids) > 1 else 4.0))
        for axes, (title, grid) in zip(figure.subplots(1, len(grids), squeeze=False)[0], grids.items(), strict=True):
            axes.imshow(grid, vmin=0, vmax=100, cmap="cividis")
            axes.set_xticks(range(len(names)), names, rotation=90 if len(grids) == 1 else 0)
            axes.set_yticks(range(len(names)), names)
            axes.set(title=title, xlabel="attacked", ylabel="crafted on")
            for (row, column), value in np.ndenumerate(grid):
                axes.text(
                    column, row, f"{value:.0f}", ha="center", va="center", color="white" if value < 50 else "black"
                )
        figure.savefig(path, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()

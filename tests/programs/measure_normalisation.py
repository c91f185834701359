"""Whether a missing normalisation is noticed: python tests/programs/measure_normalisation.py FOLDER DATA STEM.

Trains the models of `strangers.py`, which FOLDER keeps, and looks for the flag `normalisation` on test images (500 of
digits, 1,000 of the others) of each without its normalisation, behind it, and behind it twice; and of all shipped
models. Then again with 200 of them attacked: those alone, and beside the others, as a run has them. STEM.md and
STEM.csv are written at the end.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from strangers import ARCHITECTURES, EPOCHS, TRAINING_IMAGES, Stranger, images, normalised, strangers, train
from torch import Tensor, nn

from attacks.judge import predict
from benchmark.data.split import Split, balanced_subset, with_wider
from benchmark.evaluation.normalisation_flag import wanted_normalisation
from benchmark.report.tables import write_csv
from model_zoo.files.atomic import atomic_write
from model_zoo.load import load_model
from model_zoo.registry import MODELS, SHIPPED

LOOKED_AT = (
    *("digits-mlp-natural-digits", "digits-mlp-adversarial-half", "digits-mlp-adversarial-none"),
    *("digits-lenet-natural-255", "digits-lenet-adversarial-digits", "digits-lenet-natural-none"),
    *("digits-resnet-natural-half", "digits-resnet-adversarial-255"),
    *("digits-attention-natural-digits", "digits-attention-adversarial-half"),
    *("mnist-mlp-natural-mnist", "mnist-mlp-adversarial-mnist", "mnist-mlp-adversarial-none"),
    *("mnist-lenet-natural-255", "mnist-lenet-natural-none"),
    *("mnist-resnet-natural-mnist", "mnist-resnet-adversarial-half"),
    *("cifar10-mlp-natural-cifar10", "cifar10-mlp-adversarial-half", "cifar10-mlp-adversarial-none"),
    "cifar10-resnet-natural-half",
)
"""The models that the thresholds were chosen on, beside all shipped ones."""
CPU = torch.device("cpu")
ATTACKED = 200
ALONE, BESIDE = f"flag by {ATTACKED} alone", f"flag with {ATTACKED} attacked"
"""Columns: what is said of a run on so many images, without and with the others of the test set."""


class Behind(nn.Module):
    """A stranger's network behind its normalisation, so many times."""

    def __init__(self, network: nn.Module, normalisation: str, times: int) -> None:
        super().__init__()
        self.network, self.normalisation, self.times = network, normalisation, times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = normalised(x, self.normalisation)
        logits: Tensor = self.network(x)
        return logits


def trained(stranger: Stranger, split: Split, folder: Path) -> nn.Module:
    """The stranger's network, of the folder or newly trained."""
    file = folder / f"{stranger.name}.pt"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(train(stranger, split).state_dict(), file)
    network = ARCHITECTURES[stranger.architecture](tuple(split.x.shape[1:]))  # type: ignore[arg-type]
    network.load_state_dict(torch.load(file, weights_only=True))
    return network.eval()


def cases(folder: Path, data: Path, tests: dict[str, Split]) -> Iterator[tuple[dict[str, str], nn.Module]]:
    """Every model that is looked at, with what the table says of it."""
    training = {dataset: images(dataset, "train", data, TRAINING_IMAGES) for dataset in EPOCHS}
    for stranger in strangers():
        network = trained(stranger, training[stranger.dataset], folder)
        about = {
            "dataset": stranger.dataset,
            "model": f"{stranger.architecture} {stranger.training}",
            "normalisation": stranger.normalisation,
            "thresholds": "chosen on it" if stranger.name in LOOKED_AT else "not chosen on it",
        }
        for use, times in (("left out", 0), ("in front", 1), ("twice", 2)):
            if stranger.normalisation != "none" or times == 1:
                yield {**about, "use": use}, Behind(network, stranger.normalisation, times)
    for spec in MODELS:
        dataset = spec.suites[0]
        if dataset in tests and (SHIPPED / spec.checkpoint).is_file():
            about = {"dataset": dataset, "model": f"shipped {spec.name}", "normalisation": "its own"}
            yield {**about, "thresholds": "chosen on it", "use": "in front"}, load_model(spec, SHIPPED, classes=10)


def main() -> None:
    folder, data, stem = map(Path, sys.argv[1:4])
    torch.set_num_threads(1)
    tests = {dataset: images(dataset, "test", data, 1000) for dataset in EPOCHS}
    rows = []
    for about, model in cases(folder, data, tests):
        split = tests[about["dataset"]]
        right = predict(model, split.x, batch_size=250) == split.y
        part = balanced_subset(split, ATTACKED, seed=0)
        asked = {"flag": split, ALONE: part, BESIDE: with_wider(part, split, seed=0)}
        flags = {name: wanted_normalisation(model, seen, batch_size=250, device=CPU) for name, seen in asked.items()}
        rows.append({**about, "clean": round(100 * right.double().mean().item(), 1), **flags})
        print(*rows[-1].values(), flush=True)
    table = pd.DataFrame(rows)
    write_csv(stem.with_suffix(".csv"), table)
    wanted = table["use"].map({"left out": "a flag", "twice": "a flag", "in front": "none"})
    raised = {name.replace("flag", "flagged"): table[name] != "" for name in ("flag", ALONE, BESIDE)}
    found = table.assign(wanted=wanted, models=1, **raised)
    counts = found.groupby(["thresholds", "use", "wanted"])[["models", *raised]].sum().reset_index()
    wrong = table[found["flagged"] != (wanted == "a flag")]
    text = (
        "Models with the normalisation that they were trained behind left out, in front, or in front twice.\n\n"
        f"{counts.to_markdown(index=False)}\n\nFlags missed, and false alarms:\n\n"
        f"{wrong.to_markdown(index=False, floatfmt='.1f')}\n"
    )
    atomic_write(stem.with_suffix(".md"), text.encode())
    print(text)


if __name__ == "__main__":
    main()

"""What images of one's own cost, folder to table: python tests/programs/measure_own_images.py FOLDER [ATTACK].

Makes 3 x 40 JPEG and PNG images of uneven sizes in FOLDER, classes told apart by hue and stripes, and fits the last
layer of torchvision's ResNet-18 with random weights to their class means: at 64 and at 224 pixels, and with 1,000
classes of which three are there. Each is evaluated by `run_benchmark.py --model ... --data ...`, in a process of its
own, without an earlier result: processor time until the first attack and in all, accuracies, and peak resident memory.
Then reads 240 and 960 images of 224 pixels as a sweep does, to see whether memory grows as decoded images would.
Writes results/evidence/own_images.md. For Linux.
"""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import resnet18

from benchmark.cli.app import main as command_line
from benchmark.data.image_readers import own_images
from benchmark.evaluation.evaluate_chunk import evaluate_chunk
from benchmark.sweep import compute
from model_zoo.crop import Crop
from model_zoo.files.atomic import atomic_write

TABLE = Path(__file__).resolve().parents[2] / "results/evidence/own_images.md"
A_CLASS, MIB = 40, 2**20
CLASSES = {"brick": (0.62, 0.44, 0.4), "moss": (0.45, 0.56, 0.4), "slate": (0.43, 0.47, 0.6)}
"""Name and mean colour; the stripes of each have a direction of their own."""
MANY, PLACES = 1000, (980, 404, 17)
"""Classes in the larger file, and which of them the three are: in another order than their names have."""
RUNS = ((64, 3), (64, MANY), (224, 3))
"""Pixels, classes."""
READ = (240, 960)
EPSILON = "1/255"


def make_photos(folder: Path, draw: np.random.Generator) -> None:
    """The images: stripes of a class's colour and direction, with noise, 180 to 320 pixels a side."""
    for place, (name, colour) in enumerate(CLASSES.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(A_CLASS):
            height, width = draw.integers(180, 320, 2)
            rows, columns = np.mgrid[:height, :width]
            along = np.cos(np.pi * place / 3) * rows + np.sin(np.pi * place / 3) * columns
            stripes = 0.15 * np.sin(along / draw.uniform(4, 8) + draw.uniform(0, 6))
            noise = draw.normal(0, 0.05, (height, width, 3)) + draw.normal(0, 0.06, 3)
            pixels = np.clip(np.array(colour) + stripes[..., None] + noise, 0, 1)
            suffix = (".jpg", ".png")[number % 2]
            Image.fromarray(np.rint(255 * pixels).astype(np.uint8)).save(folder / name / f"{number:03d}{suffix}")


def fitted(photos: Path, px: int, classes: int, seed: int) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Weights of a ResNet-18 whose last layer says which class mean is nearest, and the classes in their order.

    Classes without images have a mean of their own, drawn around that of all images.
    """
    torch.manual_seed(seed)
    network = resnet18(weights=None, num_classes=classes).eval()
    split = own_images(photos, crop=Crop(px, px)).select(None, seed=0, quiet=True)
    head, network.fc = network.fc, torch.nn.Identity()
    scale = torch.tensor((0.229, 0.224, 0.225))[:, None, None]
    shift = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
    with torch.no_grad():
        features = torch.cat([network((part - shift) / scale) for part in split.x.split(20)])
        means = torch.stack([features[split.y == label].mean(0) for label in range(3)])
        within = features - means[split.y]
        places = list(range(3)) if classes == 3 else list(PLACES)
        spread = (means - means.mean(0)).square().sum(1).mean().sqrt()
        every = means.mean(0) + spread * torch.nn.functional.normalize(torch.randn(classes, features.shape[1]))
        every[places] = means
        centred = every - features.mean(0)
        scaled = centred / within.square().sum(1).mean()
        head.weight.copy_(scaled)
        head.bias.copy_(-(scaled * features.mean(0)).sum(1) - (scaled * centred).sum(1) / 2)
    network.fc = head
    names = [f"class-{number:03d}" for number in range(classes)]
    for place, name in zip(places, CLASSES, strict=True):
        names[place] = name
    return network.state_dict(), names


def used() -> float:
    """Seconds of processor time, those of processes that have ended included."""
    return sum(one.ru_utime + one.ru_stime for one in map(resource.getrusage, (0, resource.RUSAGE_CHILDREN)))


def peak() -> float:
    """MiB: the most resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def one_run(words: list[str]) -> None:
    """The command line in this process; prints seconds until the first attack, seconds in all, and MiB."""
    began: list[float] = []

    def watched(*given: Any, **settings: Any) -> Any:
        began.append(used())
        return evaluate_chunk(*given, **settings)

    with patch.object(sys, "argv", ["run_benchmark.py", *words]), patch.object(compute, "evaluate_chunk", watched):
        try:
            command_line()
        except SystemExit as leaving:
            if leaving.code:
                raise
    print("measured", began[0], used(), peak())


def one_reading(photos: Path) -> None:
    """Read all images of a folder twice, as a sweep does: once for their checksums, once 64 at a time."""
    before = peak()
    split = own_images(photos, crop=Crop(224, 224)).select(None, seed=0, quiet=True)
    total = sum(float(part.mean()) for part in split.x.split(64))
    assert 0 < total < len(split.x)
    print("measured", before, peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


def measured(folder: Path, *words: object) -> list[float]:
    """What a process of its own printed."""
    command = [sys.executable, __file__, *map(str, words)]
    printed = subprocess.run(command, cwd=folder, check=True, text=True, stdout=subprocess.PIPE).stdout
    return [float(word) for word in printed.splitlines()[-1].split()[1:]]


def evaluated(folder: Path, px: int, classes: int, attack: str) -> dict[str, object]:
    """A row of the first table."""
    weights, names = fitted(folder / "photos", px, classes, seed=0)
    save_file(weights, folder / "fitted.safetensors")
    (folder / "names.txt").write_text("\n".join(names) + "\n")
    shutil.rmtree(folder / "results", ignore_errors=True)
    words = ["--model", "torchvision:resnet18", "--checkpoint", "fitted.safetensors", "--data", "photos"]
    words += ["--image-size", str(px), "--epsilon", EPSILON, "--attacks", attack, "--workers", "1", "--quiet"]
    words += [] if classes == 3 else ["--classes", "names.txt"]
    before, total, most = measured(folder, "run", *words)
    scores = pd.read_csv(folder / "results/mine/photos/scores.csv").iloc[0]
    row = {
        "images": scores["n"],
        "px": px,
        "classes": classes,
        "attack": attack,
        "s before the attack": before,
        "s in all": total,
    }
    return row | {"clean": scores["clean_acc"], "robust": scores["robust_acc"], "peak MiB": most}


def read(folder: Path, images: int) -> dict[str, object]:
    """A row of the second table: so many images, of which each file is a link to one of those made."""
    many = folder / f"photos-{images}"
    for name in CLASSES:
        (many / name).mkdir(parents=True, exist_ok=True)
        files = sorted((folder / "photos" / name).iterdir())
        for number in range(images // len(CLASSES)):
            file = files[number % len(files)]
            link = many / name / f"{number:05d}{file.suffix}"
            if not link.exists():
                os.link(file, link)
    before, most, worker = measured(folder, "read", many)
    decoded = 4 * 3 * 224 * 224 * images / MIB
    row: dict[str, object] = {"images": images, "px": 224, "decoded MiB": decoded, "MiB before": before}
    return row | {"peak MiB": most, "peak MiB of a process that decodes": worker}


def processor() -> str:
    """Its name and how many cores are used."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "an unnamed processor")
    return (
        f"{len(os.sched_getaffinity(0))} cores of {name}, {torch.get_num_threads()} thread, torch {torch.__version__}"
    )


def main() -> None:
    """Measure each in a process of its own."""
    modes: dict[str, Callable[[], None]] = {
        "run": lambda: one_run(sys.argv[2:]),
        "read": lambda: one_reading(Path(sys.argv[2])),
    }
    if sys.argv[1] in modes:
        modes[sys.argv[1]]()
        return
    folder, attack = Path(sys.argv[1]).resolve(), sys.argv[2] if len(sys.argv) > 2 else "pgd-20"
    make_photos(folder / "photos", np.random.default_rng(0))
    readings = [read(folder, images) for images in READ]
    print(*readings, sep="\n", flush=True)
    runs = []
    for run in RUNS:
        runs.append(evaluated(folder, *run, attack))
        print(runs[-1], flush=True)
    text = (
        f"`python tests/programs/measure_own_images.py FOLDER {attack}`\n\n"
        f"On {processor()}. {3 * A_CLASS} JPEG and PNG images of 180 to 319 pixels a side; torchvision's ResNet-18 "
        f"with random weights, its last layer fitted to them; Linf {EPSILON}. "
        "Seconds are of processor time, start of the program included.\n\n"
        f"{pd.DataFrame(runs).to_markdown(index=False, floatfmt='.1f')}\n\n"
        "Reading alone, each image twice, 64 at a time:\n\n"
        f"{pd.DataFrame(readings).to_markdown(index=False, floatfmt='.0f')}\n"
    )
    atomic_write(TABLE, text.encode())
    print(text)


if __name__ == "__main__":
    main()

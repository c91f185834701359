"""A trained model to ship: its weights in half precision, its card with their digest.

python tests/programs/round_checkpoint.py CHECKPOINTS/SUITE/NAME FOLDER

Writes FOLDER/NAME.safetensors, .json and .csv. Numbers are those of the rounded weights from then on; the card says so.
"""

import json
import shutil
import sys
from pathlib import Path

from model_zoo.files.atomic import atomic_write, file_of
from model_zoo.weights.checkpoint import load_state_dict, save_state_dict


def main(stem: Path, folder: Path) -> None:
    """Round, and write the three files."""
    weights = load_state_dict(file_of(stem, ".safetensors"))
    rounded = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    sha256 = save_state_dict(rounded, folder / f"{stem.name}.safetensors", {})
    card = json.loads(file_of(stem, ".json").read_bytes())
    card["model"]["sha256"] = sha256
    card["training"]["weights"] = "rounded to half precision"
    atomic_write(folder / f"{stem.name}.json", (json.dumps(card, indent=1) + "\n").encode())
    shutil.copy(file_of(stem, ".csv"), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

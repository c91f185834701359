"""The one entry point; `python run_benchmark.py --help` lists what it does, `robustness-benchmark` is the same."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONPATH may have a user's modules of these names

import attacks
import model_zoo
from benchmark.cli.app import main

sys.path.remove(str(Path(__file__).resolve().parent))

__all__ = ["attacks", "main", "model_zoo"]

if __name__ == "__main__":
    main()

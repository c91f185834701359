"""The attack that CONTRIBUTING.md adds as an example is one."""

import re
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from attacks import attack
from attacks.spec import AttackSpec, Recurrence

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"


def blocks() -> list[str]:
    """The blocks of Python, without their indentation in a list."""
    found = re.findall(r"^   ```python\n(.*?)^   ```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(r"^   ", "", block, flags=re.MULTILINE) for block in found]


def test_the_example_of_an_attack_runs_and_breaks_images() -> None:
    file, entry, *_ = blocks()
    corner = sys.modules["corner"] = ModuleType("corner")
    try:
        exec(file, corner.__dict__)
        spec = eval(entry, {"AttackSpec": AttackSpec, "Recurrence": Recurrence, "corner": corner})
    finally:
        del sys.modules["corner"]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    x = torch.rand(20, 1, 4, 4)
    y = model(x).argmax(1)
    assert attack(model, x, y, spec, epsilon=1e-6).robust.all()
    assert attack(model, x, y, spec, epsilon=0.5).robust.double().mean() < 0.2

"""float32 is float32 in the block, whichever switch was used before, and that switch stands as it did afterwards."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attacks.precision import KERNELS, full_float32

SWITCHES = {
    "none": "",
    "legacy": "b.cuda.matmul.allow_tf32 = b.cudnn.allow_tf32 = True",
    "legacy off": "b.cuda.matmul.allow_tf32 = b.cudnn.allow_tf32 = False",
    "matmul medium": "torch.set_float32_matmul_precision('medium')",
    "all": "b.fp32_precision = 'tf32'",
    "cuda": "b.cuda.matmul.fp32_precision = 'tf32'",
    "cudnn": "b.cudnn.fp32_precision = 'tf32'",
    "one kernel": "b.cudnn.conv.fp32_precision = 'ieee'; b.cudnn.rnn.fp32_precision = 'tf32'",
    "oneDNN": "b.mkldnn.matmul.fp32_precision = 'bf16'",
}
"""Ways to allow less than float32, or to forbid it."""
PROGRAM = """
import torch
from torch import nn
from attacks import attack
from attacks.attack_batch import Setting, run_attack
from attacks.precision import KERNELS, full_float32
from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
b = torch.backends

def settings():
    found = [kernel.fp32_precision for kernel in (b, b.cudnn, b.mkldnn, *KERNELS)]
    for read in (lambda: b.cuda.matmul.allow_tf32, lambda: b.cudnn.allow_tf32, torch.get_float32_matmul_precision):
        try:
            found.append(read())
        except RuntimeError:
            found.append("mixed")
    return found

{switch}
before, inside = settings(), []
with full_float32():
    assert [kernel.fp32_precision for kernel in KERNELS] == ["ieee"] * len(KERNELS)
    assert not b.cuda.matmul.allow_tf32 and not b.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
    with full_float32():
        pass
    assert [kernel.fp32_precision for kernel in KERNELS] == ["ieee"] * len(KERNELS)
assert settings() == before, (before, settings())

class Watching(nn.Linear):
    def forward(self, x):
        inside.append([kernel.fp32_precision for kernel in KERNELS])
        return super().forward(x.flatten(1))

model, x = Watching(4, 3).eval().requires_grad_(False), torch.rand(2, 1, 2, 2)
y, index = model(x).argmax(1), torch.arange(2)
inside.clear()
attack(model, x, y, "pgd-20", epsilon=1e-6)
called = len(inside)
setting = Setting(ThreatModel("Linf", 1e-6), 0, 2)
run_attack(ATTACKS["pgd-20"], model, model, model, x, y, index, setting, classes=3)
assert settings() == before
print(sum(seen != ["ieee"] * len(KERNELS) for seen in inside), called > 20, len(inside) - called > 20)
"""


@pytest.mark.parametrize("name", SWITCHES)
def test_judge_and_search_compute_in_float32_whatever_was_switched_on(name: str) -> None:
    root = Path(__file__).parents[2]
    program = PROGRAM.format(switch=SWITCHES[name])
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "0 True True\n"


def test_an_exception_restores_it_too() -> None:
    before = [kernel.fp32_precision for kernel in KERNELS]
    with contextlib.suppress(ZeroDivisionError), full_float32():
        torch.zeros(1)[0] / (1 // 0)
    assert [kernel.fp32_precision for kernel in KERNELS] == before

"""What is recorded of the machine beside the numbers."""

from importlib.metadata import version

import pytest
import torch

from benchmark.evaluation.hardware import versions


def test_on_a_gpu_cuda_cudnn_and_the_driver_are_recorded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: 12040, raising=False)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    packages = versions(torch.device("cpu"))
    assert packages["torch"] == version("torch")
    on_gpu = versions(torch.device("cuda"))
    assert on_gpu == {**packages, "cuda": "12.6", "cudnn": "91002", "driver": "12.4"}

"""Every way in which PyTorch says that memory ran out halves the batch; nothing else does."""

import pytest
import torch
from torch import Tensor, nn

from attacks.errors import InputError
from attacks.out_of_memory import within_memory
from attacks.search_model import search_model

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: out of memory", 2),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
]
OTHERS = [
    torch.AcceleratorError("CUDA error: device-side assert triggered", 710),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x4 and 5x3)"),
    ValueError("out of order"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_out_of_memory_in_all_its_wordings_halves_the_batch(error: Exception) -> None:
    tried = []

    def run(batch_size: int) -> int:
        tried.append(batch_size)
        if batch_size > 2:
            raise error
        return batch_size

    assert within_memory("the run", 8, run) == (2, 2)
    assert tried == [8, 4, 2]


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_passed_on(error: Exception) -> None:
    def run(_: int) -> int:
        raise error

    with pytest.raises(type(error)):
        within_memory("the run", 8, run)


def test_a_single_image_that_does_not_fit_is_refused() -> None:
    def run(_: int) -> int:
        raise OUT_OF_MEMORY[1]

    with pytest.raises(InputError, match="out of memory with a single image"):
        within_memory("the run", 4, run)


class Uncopied(nn.Module):
    """A classifier whose copy ends in an error."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.error = error

    def __deepcopy__(self, memo: object) -> "Uncopied":
        raise self.error

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def test_a_copy_that_does_not_fit_is_not_taken_for_one_that_cannot_be_made() -> None:
    x = torch.rand(2, 1, 2, 2)
    with pytest.raises(torch.OutOfMemoryError):
        search_model(Uncopied(OUT_OF_MEMORY[0]).eval(), x, torch.bfloat16)
    searched = search_model(Uncopied(OTHERS[1]).eval(), x, torch.bfloat16)
    assert type(searched).__name__ == "InFloat32"

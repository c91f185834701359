"""What running out of memory looks like: for the CPU and for some libraries PyTorch has no exception of its own."""

import torch

NO_MEMORY = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "bad_alloc")
"""What PyTorch's RuntimeError says where the CPU's allocator, cuBLAS, cuDNN or oneDNN found no memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)

"""Several processes that train one model: each takes its part of every batch, and all add up their gradients.

What a loss or a layer computes over a batch (GAIRAT's weights, CAT's levels, batch norm), it computes over the part.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attacks.errors import InputError

LEADER = "RUN_BENCHMARK_LEADER"
"""Environment variable with the number of the process that started the others."""


@dataclass(frozen=True)
class Team:
    """One process's place among all.

    Args:
        rank: from 0, who alone writes files.
        size: how many processes.
        device: its own.
        add_up: the sum of a tensor over all processes.
        wait: until all have come here.
        speaks_first: whether this process is the first of all to ask.
    """

    rank: int
    size: int
    device: torch.device
    add_up: Callable[[Tensor], Tensor]
    wait: Callable[[], Any]
    speaks_first: Callable[[], bool] = lambda: True

    @property
    def is_leader(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def part(self, places: Tensor) -> Tensor:
        """This process's places of a batch; all of them where there are too few for everyone."""
        return places[self.rank :: self.size] if len(places) >= self.size else places

    def weight(self, places: Tensor) -> float:
        """What the mean over this process's part counts for in the mean over the batch."""
        shared = len(places) if len(places) >= self.size else len(places) * self.size
        return len(self.part(places)) / shared

    def add_up_gradients(self, model: nn.Module) -> None:
        """Give every process the sum of all gradients."""
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        if self.size > 1 and gradients:
            total = self.add_up(torch.cat([gradient.flatten() for gradient in gradients]))
            for gradient, sum_of_all in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(sum_of_all.view_as(gradient))

    def average_buffers(self, model: nn.Module) -> None:
        """Give every process the mean of all running statistics."""
        if self.size > 1:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.add_up(buffer) / self.size)

    @contextmanager
    def telling_once(self) -> Iterator[None]:
        """What stops all processes is raised in one of them; the others leave without a word."""
        try:
            yield
        except InputError:
            if not self.speaks_first():
                raise SystemExit(2) from None
            raise

    def reseed(self) -> None:
        """Let each process draw its own dropout masks from here on; the first one's are those of a single process."""
        if self.rank:
            torch.manual_seed(torch.initial_seed() + self.rank)


def alone(device: torch.device) -> Team:
    """A single process."""
    return Team(0, 1, device, lambda tensor: tensor, lambda: None)


def assemble(size: int, device: torch.device) -> Team:
    """Start the other processes, which run the same command, and find one's own place; by Lightning Fabric.

    Raises: InputError where Fabric is not installed, or there are fewer GPUs than processes.
    """
    if size == 1:
        return alone(device)
    try:
        from lightning_fabric import Fabric
    except ImportError:
        raise InputError("--workers of train needs lightning-fabric: pip install -e '.[distributed]'") from None
    if device.type == "cuda" and size > torch.cuda.device_count():
        raise InputError(f"--workers {size}: this machine has {torch.cuda.device_count()} GPUs; use fewer")
    from torch.distributed import distributed_c10d

    if int(os.environ.get("LOCAL_RANK", 0)):  # started by the first process, or by another program
        if LEADER in os.environ:
            threading.Thread(target=_leave_with, args=(int(os.environ[LEADER]),), daemon=True).start()
    else:
        os.environ[LEADER] = str(os.getpid())
    fabric = Fabric(accelerator=device.type, devices=size, strategy="ddp")
    fabric.launch()

    def add_up(tensor: Tensor) -> Tensor:
        total = fabric.all_reduce(tensor, reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    def speaks_first() -> bool:
        try:
            count: int = distributed_c10d._get_default_store().add("reported", 1)
        except RuntimeError:  # the store is gone with the first process, which has reported its error
            return False
        return count == 1

    return Team(fabric.global_rank, fabric.world_size, fabric.device, add_up, fabric.barrier, speaks_first)


def _leave_with(leader: int) -> None:
    """End with the process that started this one, even where that was killed: this one would wait for it for long."""
    while os.getppid() == leader:
        time.sleep(1.0)
    os._exit(1)

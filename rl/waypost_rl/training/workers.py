"""The processes of a run: one, or several of Ray Train that learn together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Worker:
    """One process of a run.

    Attributes:
        rank: From 0.
        count: Number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether it writes the run's files."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Return its part of a batch, whose size is a multiple of ``count``."""
        each = batch // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def sum(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return the sum over all processes of each number; all give the same names."""
        if self.count == 1:
            return dict(numbers)
        names = sorted(numbers)
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        summed = torch.tensor([numbers[name] for name in names], dtype=torch.float64, device=device)
        torch.distributed.all_reduce(summed)
        return dict(zip(names, summed.tolist(), strict=True))

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            torch.distributed.barrier()

"""Batches that shrink when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["Batches", "out_of_memory"]

Result = TypeVar("Result")


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on the device or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


class Batches:
    """Cuts rows into batches of at most `limit`, and halves the limit for good whenever a batch does not fit."""

    def __init__(self, limit: int, warn: Callable[[str], None]) -> None:
        """Begin with `limit`; `warn` gets a line whenever it is halved."""
        self.limit, self.warn = limit, warn

    def run(self, rows: Tensor, work: Callable[[Tensor], Result]) -> Iterator[tuple[Tensor, Result]]:
        """Yield (batch, result of `work` on it) over `rows` [R]; what one row alone raises goes through."""
        start = 0
        while start < len(rows):
            part = rows[start : start + self.limit]
            try:
                made = work(part)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error) or len(part) == 1:
                    raise
                self.limit = max(1, len(part) // 2)
                self.warn(f"out of memory: going on with batches of {self.limit}")
                continue
            yield part, made
            start += len(part)

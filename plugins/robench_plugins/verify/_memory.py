"""When memory is too small."""

from __future__ import annotations

import torch

__all__ = ["out_of_memory"]

_WORDS = ("DefaultCPUAllocator", "not enough memory", "out of memory", "ALLOC_FAILED")


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the device or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)

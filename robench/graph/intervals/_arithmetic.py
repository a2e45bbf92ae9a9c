"""The arithmetic that the bounds assume, whatever the process has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["ieee_arithmetic"]


@contextmanager
def ieee_arithmetic(device: torch.device) -> Iterator[None]:
    """Compute without gradients, autocast, flushed subnormals or fast convolutions.

    FFT and Winograd convolutions, which cuDNN may choose, have no componentwise error bound. TF32 and reduced
    precision reductions never touch float64.
    """
    cudnn = torch.backends.cudnn.enabled
    flushed = bool((torch.full((), 5e-324, dtype=torch.float64) * 1.0 == 0).item())
    try:
        torch.backends.cudnn.enabled = False
        if flushed:
            torch.set_flush_denormal(False)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.enabled = cudnn
        if flushed:
            torch.set_flush_denormal(True)

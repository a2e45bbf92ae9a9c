"""The other side: the authors' AutoAttack (`pip install --no-deps pyautoattack`, 0.2.0), its passes counted."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from robench.threat import Norm

__all__ = ["NAMES", "Result", "published"]

NAMES: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}
"""What the package calls the norms."""


@dataclass(frozen=True)
class Result:
    """One run: which samples were left correct, bool [n]; passes in all; CPU seconds."""

    left: npt.NDArray[np.bool_]
    forwards: int
    backwards: int
    seconds: float

    @property
    def units(self) -> int:
        """Cost in forward passes."""
        return self.forwards + 2 * self.backwards


def published(module: nn.Module, x: Tensor, y: Tensor, norm: Norm, eps: float, seed: int) -> Result:
    """Run the package's version `standard`."""
    from pyautoattack import AutoAttack

    counted, start = _Passes(module), time.process_time()
    attack = AutoAttack(counted, norm=NAMES[norm], eps=eps, seed=seed, version="standard")
    _, answered = attack.run_standard_evaluation(x, y, batch_size=500)
    return Result((answered == y).numpy(), counted.forwards, counted.backwards, time.process_time() - start)


class _Passes(nn.Module):
    """A network that counts the rows that pass through it, and the gradients taken through them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.forwards, self.backwards = inner, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        self.forwards += len(x)
        if out.requires_grad:
            out.register_hook(self._back)  # type: ignore[no-untyped-call]
        return out

    def _back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)

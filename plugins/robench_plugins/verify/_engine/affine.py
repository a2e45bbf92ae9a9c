"""Affine steps of a program: how values go forward, how coefficient rows go back, and what both may round.

A step computes y = Σ_k L_k x_k + c in real arithmetic. Rows a [R, *shape] at y become rows L_kᵀ a at x_k and the
number a·c. With â the computed rows (dot products of at most `terms` products, Higham 2002, equation 3.5)

    |a·y − (Σ_k â_k·x_k + fl(a·c))| ≤ Σ_i |a_i| (γ_n (Σ_k |L_k||x_k| + |c|) + slack)_i,      n = terms + 2

so what a step rounds costs one inner product with a vector that does not depend on the rows. `slack` is what the
constants themselves were rounded by.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["Affine", "Shape"]

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Affine(ABC):
    """An affine step.

    Attributes:
        inputs: positions of the argument steps.
        shape: shape of the output without the batch dimension.
        terms: products that one entry of the result sums at most, forward or back, and roundings of its constants.
    """

    inputs: tuple[int, ...]
    shape: Shape

    @property
    def terms(self) -> int:
        """Roundings that a term goes through at most."""
        return 0

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of the fields that hold tensors."""
        return ()

    def cast(self, dtype: torch.dtype, device: torch.device) -> Affine:
        """Return the step with constants of `dtype` on `device`."""
        return replace(
            self,
            **{name: value.to(device, dtype) for name in self.constants if (value := getattr(self, name)) is not None},
        )

    @abstractmethod
    def forward(self, *values: Tensor) -> Tensor:
        """Return y [B, ...] for values x_k [B, ...]."""

    @abstractmethod
    def magnitude(self, *values: Tensor, constant: bool = True) -> Tensor:
        """Return Σ_k |L_k| x_k (+ |c|) for values ≥ 0."""

    @abstractmethod
    def back(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return L_kᵀ a for rows a [R, ...], one per input."""

    def offset(self, rows: Tensor) -> Tensor | None:
        """Return a·c [R], None where c is 0."""
        return None

    def slack(self, *values: Tensor) -> Tensor | float:
        """Return how far the constants' own rounding moves y, given magnitudes of the values."""
        return 0.0

    def unit_rows(self, index: Tensor) -> Tensor | None:
        """Return `back` of unit rows at flat positions `index` [R] of a step with one input, where that saves work."""
        return None

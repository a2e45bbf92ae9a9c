"""Convolutions by their kernel alone, with the factors that stand around them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robench_plugins.lipschitz._correlation import sums
from robench_plugins.lipschitz._up import TINY, scale_up, sqrt_up
from robench_plugins.lipschitz.spectral import normalised
from robench_plugins.lipschitz.symbol import Plan, convolution_norm_upper, plan, unfolded

__all__ = ["Kernel", "factored"]


@dataclass(frozen=True, eq=False)
class Kernel:
    """What a matrix is made of: a weight [out, in/groups, ...], how it moves over a map, and a torus that has room."""

    weight: Tensor
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    torus: tuple[int, int] | None = None

    def plan(self, limit: float) -> Plan:
        """Return how a bound is found within `limit` seconds."""
        kernel = unfolded(torch.empty_like(self.weight, device="meta"), *self._settings)
        return plan(tuple(kernel.shape), limit, self.torus)

    @property
    def _settings(self) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        return self.stride, self.dilation, self.groups

    def norm(self, columns: Tensor | None, rows: Tensor | None, limit: float) -> tuple[float, str]:
        """Return (bound, source) for any size of the map, each channel times the largest of its factors."""
        weight = self.weight.to("cpu", torch.float64)
        total, roundings = 0, 0
        for factors, channels in ((rows, len(weight)), (columns, weight.shape[1] * self.groups)):
            if factors is not None:
                part, exponent = factored(factors.reshape(channels, -1).amax(1))
                if factors is rows:
                    weight = weight * part.reshape(-1, *[1] * (weight.dim() - 1))
                else:
                    spread = part.reshape(self.groups, 1, -1, *[1] * (weight.dim() - 2))
                    weight = (weight.reshape(self.groups, -1, *weight.shape[1:]) * spread).flatten(0, 1)
                total, roundings = total + exponent, roundings + 1
        bound, source = convolution_norm_upper(weight, *self._settings, limit, roundings, self.torus)
        return scale_up(bound, total), source

    def rough(self) -> float:
        """Return a cheap upper bound of the norm of the magnitudes: √(‖|W|‖₁ ‖|W|‖_∞)."""
        weight = self.weight.to("cpu", torch.float64)
        largest = float(weight.abs().amax())
        if largest == 0 or not math.isfinite(largest):
            return 0.0 if largest == 0 else math.inf
        scaled, exponent = normalised(weight, largest)
        kernel = scaled.reshape(self.groups, -1, weight.shape[1], math.prod(weight.shape[2:]), 1)
        return scale_up(sqrt_up(sums(kernel)), exponent)


def factored(factors: Tensor) -> tuple[Tensor, int]:
    """Return (factors · 2**−e, e), at most 2 and rounded up."""
    largest = float(factors.max())
    if largest == 0 or not math.isfinite(largest):
        return factors, 0
    scaled, exponent = normalised(factors, largest)
    return torch.where(factors == 0, 0.0, scaled.clamp_min(TINY)), exponent

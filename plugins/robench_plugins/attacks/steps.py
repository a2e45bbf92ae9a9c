"""Step sizes, and one step of projected gradient ascent in each norm."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from robench_plugins.attacks.regions import Region, per_row

__all__ = ["Schedule", "move", "step_sizes"]

Schedule = Literal["cosine", "fixed"]


def step_sizes(schedule: Schedule, steps: int, first: float | None = None) -> list[float]:
    """Return the size of each step, in units of eps.

    `fixed`: 2.5/steps throughout unless `first` is given (Madry et al. 2018: together enough to cross the ball).
    `cosine`: from `first`, 1 by default, down along half a cosine: the first steps leap between the
    faces of the ball, the last ones settle. At equal passes it breaks what `fixed` breaks, and more.
    """
    if schedule == "fixed":
        return [2.5 / steps if first is None else first] * steps
    return [(1.0 if first is None else first) * (1 + math.cos(math.pi * t / steps)) / 2 for t in range(steps)]


def move(region: Region, point: Tensor, gradient: Tensor, size: float) -> Tensor:
    """Return the points one step of `size`·eps along `gradient` [B, ...], projected back into the region.

    linf: sign(g). l2: g/‖g‖₂. l1: the steepest coordinates, as many as it takes to spend the budget inside the
    box. So the step's sparsity follows the sample's room, where fixed shares (Tramèr & Boneh 2019;
    Croce & Hein 2021, section 3, adapt theirs by history) fit some networks and budgets only.
    """
    if region.norm == "linf":
        way = region.eps * gradient.sign()
    elif region.norm == "l2":
        norm = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
        way = gradient * per_row(region.eps / norm, gradient)
    else:
        way = region.maximise(gradient) - region.x
    return region.project(point + size * way)

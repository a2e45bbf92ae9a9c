"""Step sizes, and one step of projected gradient ascent in each norm."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from robench.numerics import per_sample
from robench_plugins.attacks.regions import Region

__all__ = ["Schedule", "move", "step_sizes"]

Schedule = Literal["cosine", "fixed"]


def step_sizes(schedule: Schedule, steps: int, first: float | None = None) -> list[float]:
    """Return the size of each step, in units of eps.

    `fixed`: 2.5/steps throughout unless `first` is given (Madry et al. 2018: together enough to cross the ball).
    `cosine`: from `first`, 1 by default, down along half a cosine: the first steps leap between the
    faces of the ball, the last ones settle. At equal passes it broke more on most digits networks tried.
    """
    if schedule == "fixed":
        return [2.5 / steps if first is None else first] * steps
    return [(1.0 if first is None else first) * (1 + math.cos(math.pi * t / steps)) / 2 for t in range(steps)]


def move(region: Region, point: Tensor, gradient: Tensor, size: float) -> Tensor:
    """Return the points one step of length `size`·eps along `gradient` [B, ...], projected back into the region.

    linf: along sign(g). l2: along g/‖g‖₂, over the coordinates that the box lets move, or images with many
    pixels at 0 and 1 would spend most of each step outside. l1: the steepest step that stays in the box, so that a
    coordinate near its side passes what it cannot use on to the next; steps get sparser as they get shorter. (Fixed
    shares of the coordinates, Tramèr & Boneh 2019, which Croce & Hein 2021 adapt by history, fit some networks
    and budgets only.)
    """
    if region.norm == "l1":
        return region.project(point + region.steepest(point, gradient, size))
    if region.norm == "linf":
        return region.project(point + size * region.eps * gradient.sign())
    free = torch.where(gradient > 0, point < region.upper, point > region.lower)
    way = torch.where(free, gradient, 0)
    norm = way.flatten(1).norm(dim=1).clamp_min(torch.finfo(way.dtype).tiny)
    return region.project(point + size * region.eps * (way / per_sample(norm, way)))

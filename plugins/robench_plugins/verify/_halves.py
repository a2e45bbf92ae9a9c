"""A margin proven leaf by leaf: splits where the triangle relaxation is loosest, every leaf by its own dual."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robench_plugins.verify._highs import TIME_LIMIT
from robench_plugins.verify._leaves import closed
from robench_plugins.verify._piecewise import Start

__all__ = ["Halved", "halve"]


@dataclass(frozen=True)
class Halved:
    """Whether every leaf was proven, how many linear programs that took, and whether time ran out first."""

    proven: bool
    leaves: int
    late: bool = False


def halve(start: Start, leaves: int, seconds: float) -> Halved:
    """Return whether the margin of `start` is above 0, proven in at most `leaves` leaves and `seconds`.

    Depth first. A leaf that is exact and not above 0 ends the search: there is nothing left to split.
    """
    if start.margin > 0:
        return Halved(True, 0)
    deadline = time.monotonic() + seconds
    program = start.known.program
    none = {
        position: torch.zeros(1, *program.steps[position].shape, dtype=torch.int8) for position in program.activations
    }
    pending: list[tuple[Mapping[int, Tensor], Tensor]] = [(none, start.bounds)]
    for count in range(1, leaves + 1):
        signs, bounds = pending.pop()
        rows = start.undecided(bounds)
        left = deadline - time.monotonic()
        answer = closed(start.known, signs, start.rows(rows), seconds=left)
        bounds = bounds.clone()
        bounds[rows] = torch.maximum(bounds[rows], answer.bound.nan_to_num(nan=-math.inf))
        if not start.forms.margin(bounds) > 0:
            if answer.words[0] == TIME_LIMIT:
                return Halved(False, count, True)
            loose = (answer.worst[:, 0] >= 0) & ~(start.best(bounds)[rows] > 0)
            if not loose.any():
                return Halved(False, count)
            at, unit = answer.worst[loose][answer.optimum[loose].argmin()].tolist()
            for sign in (1, -1):
                child = signs[at].flatten(1).clone()
                child[0, unit] = sign
                pending.append(({**signs, at: child.reshape(signs[at].shape)}, bounds))
        if not pending:
            return Halved(True, count)
    return Halved(False, leaves)

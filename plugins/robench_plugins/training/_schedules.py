"""Learning rates and radii over a training, each after the paper that made it known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

__all__ = ["Rise", "Schedule", "one_cycle", "risen", "scheduled"]

Schedule = Literal["cosine", "cyclic", "piecewise", "one-cycle"]
Rise = Literal["linear", "smoothed"]

_PEAK: Final = 0.4
_BEND: Final = 0.25
_DEGREE: Final = 4


def _cosine(part: float) -> float:
    return (1 + math.cos(math.pi * part)) / 2


def _cyclic(part: float) -> float:
    return part / _PEAK if part < _PEAK else (1 - part) / (1 - _PEAK)


def scheduled(
    kind: Schedule, lr: float, drops: Sequence[float], momentum: bool
) -> Callable[[Optimizer, int], LRScheduler]:
    """Return the schedule of an optimizer's learning rate, whose highest is `lr`, over a number of steps.

    `cosine`: from 1 to 0 on half a cosine (Loshchilov & Hutter 2017). `cyclic`: straight from 0 to 1 at 2/5 and back
    (Wong et al. 2020, Andriushchenko & Flammarion 2020). `piecewise`: a tenth after each of `drops`, parts of the
    training. `one-cycle` is `one_cycle`.
    """
    if kind == "one-cycle":
        return one_cycle(lr, momentum)
    factors: dict[str, Callable[[float], float]] = {
        "cosine": _cosine,
        "cyclic": _cyclic,
        "piecewise": lambda part: 0.1 ** sum(part >= drop for drop in drops),
    }
    return lambda optimizer, steps: LambdaLR(optimizer, lambda done: factors[kind](done / steps))


def one_cycle(lr: float, momentum: bool = True) -> Callable[[Optimizer, int], LRScheduler]:
    """Return torch's one-cycle schedule (Smith & Topin 2018): lr/25 to `lr` at 3/10, then to almost 0.

    Momentum goes from .95 to .85 and back, unless there is none.
    """
    return lambda optimizer, steps: OneCycleLR(optimizer, lr, total_steps=steps, cycle_momentum=momentum)


def risen(kind: Rise, part: float) -> float:
    """Return which part of its last value a radius has when `part` of its rise is done: from 0 at 0 to 1 at 1.

    `linear`: the same. `smoothed`: α·part⁴ up to a quarter of the rise, then straight on with the slope reached there
    (`SmoothedScheduler` of auto_LiRPA, Xu et al. 2020, after Gowal et al.'s code), so that α (m⁴ + 4 m³ (1 − m)) = 1.
    """
    part = min(max(part, 0.0), 1.0)
    if kind == "linear":
        return part
    scale = 1 / (_BEND**_DEGREE + _DEGREE * _BEND ** (_DEGREE - 1) * (1 - _BEND))
    bend, slope = scale * _BEND**_DEGREE, scale * _DEGREE * _BEND ** (_DEGREE - 1)
    return scale * part**_DEGREE if part < _BEND else min(bend + slope * (part - _BEND), 1.0)

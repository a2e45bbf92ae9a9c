"""Training on linear bounds, with intervals inside: Zhang et al. 2020, CROWN-IBP."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robench import param
from robench_plugins.training.ibp import Ibp
from robench_plugins.training.intervals import Box, worst_margins
from robench_plugins.training.linear_bounds import Slope, linear_margins

__all__ = ["CrownIbp"]


@dataclass(frozen=True)
class CrownIbp(Ibp):
    """Minimise κ·CE(f(x)) + (1 − κ)·CE(β·CROWN-IBP bound + (1 − β)·IBP bound) of the worst logits (their eq. 10).

    Interval bounds of the hidden layers choose the lines of one backward pass (CROWN-IBP), which is tighter than
    intervals at first and helps a network into the region where intervals are tight. β falls from 1 to `beta` as ε
    rises. A step costs about `classes` more backward passes than one of `ibp`.

    As published for MNIST: `epochs=200,batch=256,lr=0.0005,schedule=piecewise,drops=0.65+0.95,wait=0.05,ramp=0.25,
    init=he`, ε 0.2 or 0.4, and `beta=0,kappa=0.5`.

    History, per epoch: as for `ibp`; `certified` by the tighter of the two bounds.
    """

    beta: float = param(0.0, "weight of the linear bounds at the end", minimum=0, maximum=1)
    slope: Slope = param("adaptive", "line below an unstable ReLU: adaptive has the least area, zero is never below it")

    def worst(self, network: nn.Sequential, boxes: list[Box], y: Tensor, risen: float) -> tuple[Tensor, Tensor]:
        """Return the mixed bounds, and the tighter of the two."""
        intervals = worst_margins(network[-1], boxes[-1], y)
        beta = 1 - (1 - self.beta) * risen
        if not (beta and risen):
            return intervals, intervals
        lines = linear_margins(network, boxes, y, self.slope)
        return beta * lines + (1 - beta) * intervals, torch.minimum(lines, intervals)

"""Rigorous interval arithmetic on graphs: bounds of logits and margins that hold in real arithmetic.

The set of inputs is pushed through the graph as boxes (interval bound propagation, Gowal et al. 2018) in float64,
rounded outward in every step.
"""

from robench.graph.intervals._arithmetic import ieee_arithmetic
from robench.graph.intervals._boxes import node_boxes
from robench.graph.intervals._margins import (
    ball_margin_lower,
    logit_bounds,
    pairwise_margins,
    point_margins,
    set_margins,
)
from robench.graph.intervals._norms import dual_norm_up
from robench.graph.intervals._propagate import unsupported
from robench.graph.intervals._sets import Ball, Box, input_set

__all__ = [
    "Ball",
    "Box",
    "ball_margin_lower",
    "dual_norm_up",
    "ieee_arithmetic",
    "input_set",
    "logit_bounds",
    "node_boxes",
    "pairwise_margins",
    "point_margins",
    "set_margins",
    "unsupported",
]

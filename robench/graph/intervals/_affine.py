"""Affine operators on boxes: centre and radius, with every rounding error inside the radius.

For w·v + b with v in [c − r, c + r] and computed fl(w·c + b), in any order of summation,

    |w·v + b − fl(w·c + b)| ≤ |w|·(r + γ_n |c|) + γ_n |b|        (Higham 2002, equation 3.5)

so the radius takes one more product, of |w| with r + γ_n |c|; n counts terms and roundings. That product and
everything after it rounds too: factors well above its relative error make up for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robench.graph.intervals._sets import Box, sane
from robench.numerics import UNIT_ROUNDOFF, gamma

__all__ = ["Rounding", "centre_and_spread", "enclose"]

UNDERFLOW = 2.0**-1020
"""Above the absolute error of one product, sum or flushed number around the smallest doubles."""


@dataclass(frozen=True, eq=False)
class Rounding:
    """The rounding errors of one affine operator.

    Attributes:
        terms: roundings that a term of the sum goes through at most: its n in γ_n.
        floor: what the bias and underflow add to the radius, broadcast against the result.
    """

    terms: int
    floor: Tensor

    @classmethod
    def of(cls, terms: int, magnitude: Tensor, bias: Tensor | None) -> Rounding:
        """Return the errors of sums of at most `terms` products.

        `magnitude` is the sum of the absolute weights per result; where it is 0, products are exactly 0.
        """
        # Not `> 0`: a NaN weight must reach the floor.
        floor = torch.where(magnitude == 0, 0.0, UNDERFLOW * (magnitude + terms))
        if bias is not None:
            floor = floor + 2 * gamma(terms + 4) * bias.abs() + torch.where(bias != 0, UNDERFLOW, 0.0)
        return cls(terms, floor)


def centre_and_spread(box: Box, rounding: Rounding) -> tuple[Tensor, Tensor]:
    """Return c and r + γ_n |c|, rounded to nearest: `enclose` makes up for that."""
    if box.is_point:
        return box.lower, box.lower.abs() * gamma(rounding.terms + 2)
    centre = (box.lower / 2).add_(box.upper, alpha=0.5)
    radius = torch.maximum(box.upper - centre, centre - box.lower)
    return centre, radius.add_(centre.abs(), alpha=gamma(rounding.terms + 2))


def enclose(value: Tensor, spread: Tensor, rounding: Rounding) -> Box:
    """Return the box around `value` = fl(W c + b), given `spread` = fl(|W|(r + γ_n |c|)) ≥ 0 (changed in place).

    The last term covers the rounding of value ∓ radius itself. A sum of exact zeros stays exactly zero.
    """
    radius = spread.mul_(1 + 4 * gamma(rounding.terms + 8)).add_(rounding.floor)
    radius.add_(value.abs(), alpha=8 * UNIT_ROUNDOFF)
    return sane(value - radius, value + radius)

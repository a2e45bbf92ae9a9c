"""Variables in which a box has no sides: what Carlini & Wagner (2017, section V.B) optimise instead of the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

__all__ = ["Change", "Variables"]

Change = Literal["sine", "tanh", "direct"]

_INSIDE = 1 - 1e-6
"""Points begin this far towards the sides: on them no derivative is left (the published factor)."""


@dataclass(frozen=True, eq=False)
class Variables:
    """Inputs x as middle + half·sin(w), as middle + half·tanh(w), or x itself, clipped; boxes [R, ...].

    tanh is the published change. Its derivative vanishes at the sides like (1 − tanh²)'s tail: a pixel that starts at
    0 sits at w = −7 and needs some 500 steps of 0.01 to come off, during which a search looks as if it were stuck. The
    sine's vanishes there like a square root and lets it go in a few.
    """

    change: Change
    lower: Tensor
    upper: Tensor

    def select(self, rows: Tensor) -> Variables:
        """Return those of some rows (bool mask or int64 positions)."""
        return Variables(self.change, self.lower[rows], self.upper[rows])

    def of(self, x: Tensor) -> Tensor:
        """Return w for the inputs `x` [R, ...]."""
        if self.change == "direct":
            return x
        share = ((x - self._middle) / self._half).clamp(-1, 1) * _INSIDE
        return share.atanh() if self.change == "tanh" else share.asin()

    def point(self, w: Tensor) -> Tensor:
        """Return the inputs for `w` [R, ...]: always in the box."""
        if self.change != "direct":
            w = self._middle + self._half * (w.tanh() if self.change == "tanh" else w.sin())
        return w.clamp(self.lower, self.upper)

    def gradient(self, w: Tensor, g: Tensor) -> Tensor:
        """Return ∂/∂w for the gradient `g` = ∂/∂x at `w`."""
        if self.change == "direct":
            return g
        return g * self._half * (1 - w.tanh().square() if self.change == "tanh" else w.cos())

    def kept(self, w: Tensor) -> Tensor:
        """Return `w` after a step: inside the box where x itself is the variable."""
        return w.clamp(self.lower, self.upper) if self.change == "direct" else w

    @property
    def _middle(self) -> Tensor:
        return (self.lower + self.upper) / 2

    @property
    def _half(self) -> Tensor:
        return (self.upper - self.lower) / 2

"""Accuracy against ε as paths for an inline SVG."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from robench.metrics import Curve

__all__ = ["HEIGHT", "WIDTH", "Panel", "panel"]

WIDTH, HEIGHT = 240, 120
_STEPS = 120


@dataclass(frozen=True)
class Panel:
    """The paths of one classifier's curves in a box of WIDTH x HEIGHT, y downwards.

    `dots` mark the ε at which an attack really searched: (x, y) on the empirical curve, `solid` says that it did
    everywhere.
    """

    band: str
    certified: str | None
    empirical: str | None
    dots: tuple[tuple[str, str], ...]
    solid: bool


def panel(line: Curve, right: float, *, certified: bool, empirical: bool) -> Panel:
    """Return the curves drawn from ε = 0 to `right`."""
    grid = [right * step / _STEPS for step in range(_STEPS + 1)]
    low = [_at(line, line.certified, eps) if certified else 0.0 for eps in grid]
    high = [_at(line, line.empirical, eps) if empirical else line.empirical[0] for eps in grid]
    top = _path(high)
    bottom = _path(low[::-1], back=True)
    dots = [eps for eps in line.searched if eps <= right and empirical]
    return Panel(
        band=f"M{top}L{bottom}Z",
        certified=f"M{_path(low)}" if certified else None,
        empirical=f"M{top}" if empirical else None,
        dots=tuple((_number(WIDTH * eps / right), _y(_at(line, line.empirical, eps))) for eps in dots),
        solid=line.everywhere,
    )


def _at(line: Curve, values: Sequence[float], eps: float) -> float:
    return values[bisect_right(line.eps, eps) - 1]


def _path(values: Sequence[float], back: bool = False) -> str:
    """Points of a step function; neighbours of equal height are left out."""
    points = []
    for step, value in enumerate(values):
        x = WIDTH * (_STEPS - step if back else step) / _STEPS
        inner = 0 < step < len(values) - 1 and values[step - 1] == value == values[step + 1]
        if not inner:
            points.append(f"{_number(x)} {_y(value)}")
    return "L".join(points)


def _y(value: float) -> str:
    return _number(HEIGHT * (1 - value))


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")

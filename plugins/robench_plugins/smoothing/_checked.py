"""What a noise hands back, checked before anything is believed: a plugin may be wrong, its certificates may not.

Every function raises PluginError, one line that names the noise's class. What cannot be seen here is a theorem that is
wrong (`robench.testing` holds a noise against its votes).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from robench.binomial import Floats
from robench.contracts import Noise, TwoSidedNoise
from robench.errors import PluginError
from robench.streams import Stream
from robench.text import one_line
from robench.threat import Norm

__all__ = ["check_filled", "draw", "fill", "radius", "threshold", "two_sided_radius"]

Result = TypeVar("Result")

_TELLING = 64
"""Numbers from which on equal draws are no chance: of a coin 2⁻⁶³."""


def radius(noise: Noise, p_low: Floats, norm: Norm, dimension: int) -> Floats:
    """Return the radii of `Noise.radius`: 0 for p_low ≤ 1/2, and finite for p_low < 1."""
    found = _call(noise, "radius", noise.radius, np.array(p_low), norm, dimension)
    return _radii(noise, "radius", found, p_low > 0.5, p_low >= 1, p_low)


def two_sided_radius(noise: Noise, p_low: Floats, p_up: Floats, norm: Norm, dimension: int) -> Floats:
    """Return the radii of `TwoSidedNoise.two_sided_radius`: 0 where another class may have the larger share."""
    method = cast(TwoSidedNoise, noise).two_sided_radius
    found = _call(noise, "two_sided_radius", method, np.array(p_low), np.array(p_up), norm, dimension)
    ahead = (p_low > p_up) | (p_low > 0.5)
    return _radii(noise, "two_sided_radius", found, ahead, (p_low >= 1) | (p_up <= 0), p_low)


def threshold(noise: Noise, eps: float, norm: Norm, dimension: int) -> float:
    """Return the probability of `Noise.threshold`, in [1/2, 1]."""
    found: Any = _call(noise, "threshold", noise.threshold, eps, norm, dimension)
    if isinstance(found, bool) or not isinstance(found, float | int) or not 0.5 <= found <= 1:
        raise _broken(noise, f"threshold gives {_shown(found)} at eps = {eps:g}, and must give a float in [1/2, 1]")
    return float(found)


def fill(noise: Noise, out: Tensor, generator: torch.Generator) -> None:
    """Overwrite `out` with draws (`Noise.fill`)."""
    _call(noise, "fill", noise.fill, out, generator)


def check_filled(noise: Noise, block: Tensor) -> None:
    """Refuse draws [rows, size], NaN before `fill`, that are not all finite, or all the same."""
    if not bool(block.isfinite().all()):
        raise _broken(noise, "fill leaves numbers as they were, or draws some that are not finite")
    if block.numel() >= _TELLING and bool((block == (block[0] if len(block) > 1 else block[0, 0])).all()):
        raise _broken(noise, "fill draws the same again and again, and draws must be independent")


def draw(noise: Noise, stream: Stream, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return one draw per row of `stream` (`Noise.draw`): fewer would be added to all rows alike."""
    found: Any = _call(noise, "draw", noise.draw, stream, shape, dtype)
    expected = (len(stream), *shape)
    if not isinstance(found, Tensor) or found.shape != expected or found.dtype != dtype:
        shown = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise _broken(noise, f"draw gives {shown}, and must give {dtype} {list(expected)}")
    return found


def _call(noise: Noise, name: str, method: Callable[..., Result], *arguments: Any) -> Result:
    try:
        return method(*arguments)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # a plugin's
        raise _broken(noise, f"{name} failed: {one_line(error)}") from error


def _radii(noise: Noise, name: str, found: Any, proven: Any, certain: Any, p_low: Floats) -> Floats:
    """Return `found` as radii: 0 unless `proven`, and finite unless `certain`; both bool, of the shape of `p_low`."""
    if not isinstance(found, np.ndarray | np.float64 | float) or np.asarray(found).dtype != np.float64:
        shown = f"{found.dtype} numbers" if isinstance(found, np.ndarray | np.generic) else type(found).__name__
        raise _broken(noise, f"{name} gives {shown}, and must give float64 numbers")
    radii: Floats = np.asarray(found)
    if radii.shape != p_low.shape:
        raise _broken(noise, f"{name} gives the shape {list(radii.shape)} for {list(p_low.shape)} probabilities")
    wrong = ~(radii >= 0) | ((radii > 0) & ~proven) | ((radii == math.inf) & ~certain)
    if wrong.any():
        p, first = float(p_low[wrong][0]), float(radii[wrong][0])
        wanted = "must be from 0 on" if not first >= 0 else "must be finite" if first == math.inf else "proves nothing"
        raise _broken(noise, f"{name} gives {first:g} at p_low = {p:.6g}, which {wanted}")
    return radii


def _broken(noise: Noise, what: str) -> PluginError:
    return PluginError(f"noise {type(noise).__name__}", what)


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, float | int) else type(value).__name__

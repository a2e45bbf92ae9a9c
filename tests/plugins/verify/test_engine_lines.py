"""Lines around activations hold the function everywhere between, whatever the slope; and they are not loose."""

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robench_plugins.verify._engine.relax import relax, shifts

FINITE = st.floats(-1e6, 1e6, allow_nan=False)
SMALL = st.floats(-30, 30, allow_nan=False)


def exact(op, x: float):
    """Return f(x) as an interval of mpmath numbers at 60 digits (a point for the ReLU)."""
    with mpmath.workdps(60):
        v = mpmath.mpf(x)
        return {"relu": lambda: max(v, 0), "tanh": lambda: mpmath.tanh(v), "sigmoid": lambda: 1 / (1 + mpmath.exp(-v))}[
            op
        ]()


def inside(op, low, high, k_low, b_low, k_high, b_high, count=12) -> bool:
    """Whether both lines hold f at points of [low, high], its ends, 0 and the lines' own touching points."""
    places = {low, high, min(max(0.0, low), high)} | set(np.linspace(low, high, count).tolist())
    for slope in (k_low, k_high):
        if op != "relu" and 0 < slope < (0.25 if op == "sigmoid" else 1):
            at = _atanh(math.sqrt(1 - slope)) if op == "tanh" else _atanh(math.sqrt(1 - 4 * slope)) * 2
            places |= {p for p in (at, -at) if low <= p <= high}
    with mpmath.workdps(60):
        for x in places:
            if not low <= x <= high:
                continue
            value, v = exact(op, x), mpmath.mpf(x)
            if not mpmath.mpf(k_low) * v + b_low <= value <= mpmath.mpf(k_high) * v + b_high:
                return False
    return True


def _atanh(y: float) -> float:
    return math.atanh(y) if y < 1 else math.inf


def lines(op, low, high):
    made = relax(op, *(torch.tensor([[side]], dtype=torch.float64) for side in (low, high)))
    shift = 0.0 if made.lower_shift is None else made.lower_shift.item()
    return made.lower_slope.item(), shift, made.upper_slope.item(), made.upper_shift.item()


@settings(max_examples=300)
@given(FINITE, FINITE)
def test_relu_lines_hold_the_relu_in_exact_arithmetic(a, b):
    low, high = min(a, b), max(a, b)
    k_low, b_low, k_high, b_high = (Fraction(v) for v in lines("relu", low, high))
    for x in map(Fraction, (low, high, min(max(0.0, low), high), low / 2 + high / 2)):
        assert k_low * x + b_low <= max(x, 0) <= k_high * x + b_high
    # Tight: the chord meets both ends but for rounding, and signs that are known are exact.
    assert k_high * Fraction(high) + b_high - max(high, 0) <= Fraction(1, 10**12) * (1 + abs(Fraction(high)))
    if low >= 0 or high <= 0:
        assert (k_low, b_low) == (k_high, b_high) == (int(low >= 0), 0)
    else:
        assert k_low == (1 if high > -low else 0)


EDGES = [(0.0, 0.0), (-0.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (-5e-324, 5e-324), (-1e-310, 1.0), (-1e308, 1e308)]


@pytest.mark.parametrize(("low", "high"), EDGES)
def test_relu_at_the_edges(low, high):
    k_low, b_low, k_high, b_high = (Fraction(v) for v in lines("relu", low, high))
    assert 0 <= k_low <= 1 and 0 <= k_high <= 1
    for x in map(Fraction, (low, high)):
        assert k_low * x + b_low <= max(x, 0) <= k_high * x + b_high


@pytest.mark.parametrize("op", ["sigmoid", "tanh"])
@settings(max_examples=80)
@given(SMALL, SMALL, st.floats(0, 1), st.floats(0, 1))
def test_smooth_lines_hold_the_function_for_every_slope(op, a, b, k_low, k_high):
    low, high = min(a, b), max(a, b)
    assert inside(op, low, high, *lines(op, low, high))
    ends = [torch.tensor([v], dtype=torch.float64) for v in (low, high, k_low, k_high)]
    below, above = shifts(op, *ends)
    assert inside(op, low, high, k_low, below.item(), k_high, above.item())


@pytest.mark.parametrize("op", ["sigmoid", "tanh"])
@pytest.mark.parametrize("low", [-700.0, -40.0, -3.0, -1e-8, -5e-324, 0.0, 1e-9, 2.0, 36.0, 699.0])
@pytest.mark.parametrize("width", [0.0, 5e-324, 1e-12, 1e-3, 1.0, 5.0, 800.0])
def test_smooth_lines_at_the_edges(op, low, width):
    assert inside(op, low, low + width, *lines(op, low, low + width), count=9)


@pytest.mark.parametrize("op", ["sigmoid", "tanh"])
def test_smooth_lines_close_in(op):
    """Second order: halving the interval divides the gap by about four, and the default beats the constant box."""
    f = math.tanh if op == "tanh" else lambda v: 1 / (1 + math.exp(-v))
    for middle in (-2.0, -0.7, 0.0, 0.4, 1.5):
        gaps = []
        for half in (0.4, 0.2, 0.1, 0.05):
            low, high = middle - half, middle + half
            k_low, b_low, k_high, b_high = lines(op, low, high)
            grid = np.linspace(low, high, 33)
            gaps.append(float(np.mean((k_high * grid + b_high) - (k_low * grid + b_low))))
            assert gaps[-1] <= (f(high) - f(low)) * 0.75
        assert all(later <= earlier / 2.8 for earlier, later in itertools.pairwise(gaps))
    # Wide intervals: the tangent through the far end touches there.
    for low, high in ((-4.0, 5.0), (-0.5, 6.0)):
        k_low, b_low, k_high, b_high = lines(op, low, high)
        assert abs(k_high * low + b_high - f(low)) < 1e-6


@pytest.mark.parametrize("op", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("sides", [(-math.inf, math.inf), (-1.0, math.inf), (math.nan, 1.0), (-math.inf, -1.0)])
def test_what_is_not_finite_gives_no_line_that_excludes_a_value(op, sides):
    """Each number of a line is NaN or infinite, which proves nothing, or the line holds."""
    low, high = sides
    k_low, b_low, k_high, b_high = lines(op, low, high)
    for x in (-50.0, -1.0, 0.0, 0.5, 1.0, 40.0):
        if not low <= x <= high:
            continue
        value = float(exact(op, x))
        assert not k_low * x + b_low > value + 1e-15
        assert not k_high * x + b_high < value - 1e-15

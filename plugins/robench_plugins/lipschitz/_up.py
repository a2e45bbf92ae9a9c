"""Arithmetic of non-negative numbers, rounded up: what upper bounds are multiplied and added with.

A product with 0 is 0, and so is nothing else: +inf stands for a finite number that is not known. Results that underflow
become `TINY`, far above the smallest doubles, so that no later step can lose them.
"""

from __future__ import annotations

import math

__all__ = ["TINY", "add_up", "div_up", "mul_up", "scale_up", "sqrt_up"]

TINY = 2.0**-1000


def _up(value: float) -> float:
    """Return the double above a positive result that was rounded to nearest; +inf for NaN."""
    return math.inf if math.isnan(value) else max(math.nextafter(value, math.inf), TINY)


def add_up(a: float, b: float) -> float:
    """Return a + b, rounded up."""
    return _up(a + b) if a and b else a or b


def mul_up(a: float, b: float) -> float:
    """Return a · b, rounded up; exact where a factor is 0 or 1."""
    if a == 0 or b == 0:
        return 0.0
    if a == 1 or b == 1:
        return b if a == 1 else a
    return _up(a * b)


def div_up(a: float, b: float) -> float:
    """Return a / b for b > 0, rounded up."""
    return _up(a / b) if a else 0.0


def sqrt_up(a: float) -> float:
    """Return √a, rounded up; exact for 0 and 1."""
    return a if a in (0, 1) else _up(math.sqrt(a))


def scale_up(a: float, exponent: int) -> float:
    """Return a · 2**exponent, rounded up."""
    try:
        scaled = math.ldexp(a, exponent)
    except OverflowError:
        return math.inf
    return max(scaled, TINY) if a else 0.0

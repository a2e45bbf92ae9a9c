"""Scalar arithmetic that is rounded up: never below the exact result, and hardly above it."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robench_plugins.lipschitz._up import TINY, add_up, div_up, mul_up, scale_up, sqrt_up

NUMBERS = st.floats(0, allow_nan=False, allow_infinity=False)


def holds(bound, exact):
    """Whether `bound` is above `exact`, closely: `TINY` or infinity at the ends of the range."""
    if bound == math.inf:
        return exact >= Fraction(2) ** 1023
    return exact <= bound and (bound <= TINY or bound <= exact * (1 + Fraction(2) ** -51))


@given(NUMBERS, NUMBERS)
def test_sums_products_and_quotients(a, b):
    assert holds(add_up(a, b), Fraction(a) + Fraction(b))
    assert holds(mul_up(a, b), Fraction(a) * Fraction(b))
    if b > 0:
        assert holds(div_up(a, b), Fraction(a) / Fraction(b))


@given(NUMBERS)
def test_roots(a):
    assert Fraction(sqrt_up(a)) ** 2 >= a
    assert sqrt_up(a) <= math.sqrt(a) * (1 + 2**-51)


@given(NUMBERS, st.integers(-2200, 2200))
def test_powers_of_two(a, exponent):
    assert holds(scale_up(a, exponent), Fraction(a) * Fraction(2) ** exponent)


def test_what_is_exact_stays_and_zero_beats_what_is_not_known():
    assert mul_up(1.0, 0.3) == mul_up(0.3, 1.0) == add_up(0.0, 0.3) == add_up(0.3, 0.0) == 0.3
    assert sqrt_up(0.0) == scale_up(0.0, 9) == div_up(0.0, 3.0) == mul_up(0.0, math.inf) == mul_up(math.inf, 0.0) == 0
    assert sqrt_up(1.0) == 1.0
    assert add_up(math.inf, 1.0) == mul_up(math.inf, 0.5) == div_up(math.inf, 2.0) == sqrt_up(math.inf) == math.inf


@pytest.mark.parametrize("value", [5e-324, 1e-310, 2.0**-1022])
def test_what_underflows_is_raised(value):
    assert mul_up(value, 0.5) == mul_up(value, value) == div_up(value, 2.0) == TINY

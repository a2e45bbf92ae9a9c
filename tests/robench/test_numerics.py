"""Directed rounding against exact rational arithmetic."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robench.numerics import gamma, open_to_closed, per_sample, round_down, round_up

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(a=FINITE, b=FINITE)
def test_a_rounded_operation_encloses_the_exact_one(a, b):
    exact = Fraction(a) + Fraction(b)
    computed = torch.tensor(a, dtype=torch.float64) + torch.tensor(b, dtype=torch.float64)
    below, above = round_down(computed).item(), round_up(computed).item()
    assert below == -math.inf or Fraction(below) < exact
    assert above == math.inf or exact < Fraction(above)


@given(FINITE)
def test_the_neighbours_are_adjacent(value):
    tensor = torch.tensor([value] * 9, dtype=torch.float64)  # long enough for vector instructions and a remainder
    assert round_up(tensor).tolist() == [math.nextafter(value, math.inf)] * 9
    assert round_down(tensor).tolist() == [math.nextafter(value, -math.inf)] * 9


def test_infinities_and_nan_stay_where_they_must():
    special = torch.tensor([[math.inf], [-math.inf], [math.nan]], dtype=torch.float64).expand(3, 9).contiguous()
    assert (round_up(special)[0] == math.inf).all()
    assert (round_down(special)[1] == -math.inf).all()
    assert round_up(special)[2].isnan().all() and round_down(special)[2].isnan().all()


@given(st.integers(0, 2**52 - 1))
def test_gamma_is_the_next_double_at_or_above_the_exact_value(n):
    exact = Fraction(n) / (2**53 - n)
    assert Fraction(gamma(n)) >= exact
    assert n == 0 or Fraction(math.nextafter(gamma(n), 0.0)) < exact


@pytest.mark.parametrize("n", [-1, 2**52])
def test_gamma_refuses_what_has_no_bound(n):
    with pytest.raises(ValueError, match="γ_n needs"):
        gamma(n)


def test_a_closed_ball_lies_inside_the_open_one():
    radius = torch.tensor([0.0, 5e-324, 1.0, 1.7976931348623157e308, math.inf, math.nan], dtype=torch.float64)
    expected = [0.0, 0.0, math.nextafter(1.0, 0.0), math.nextafter(1.7976931348623157e308, 0.0), math.inf, 0.0]
    assert open_to_closed(radius).tolist() == expected


def test_one_value_per_sample_meets_samples_of_any_shape():
    values = torch.tensor([2.0, 3.0])
    for shape in ((2,), (2, 4), (2, 1, 3, 3)):
        scaled = torch.ones(shape) * per_sample(values, torch.ones(shape))
        assert scaled.shape == shape
        assert scaled.reshape(2, -1)[:, 0].tolist() == [2.0, 3.0]
        assert scaled.flatten().unique().tolist() == [2.0, 3.0]
    assert per_sample(torch.zeros(0), torch.zeros(0, 3)).shape == (0, 1)

"""Exact ε and domains."""

from fractions import Fraction

import pytest
import torch

from robench.errors import InputError
from robench.threat import Domain, Epsilon, parse_norm


@pytest.mark.parametrize(
    ("text", "exact"),
    [("8/255", Fraction(8, 255)), ("0.3", Fraction(3, 10)), ("1e-2", Fraction(1, 100)), (" 2 ", Fraction(2))],
)
def test_epsilon_is_exact_and_kept_as_given(text, exact):
    epsilon = Epsilon.parse(text)
    assert epsilon.exact == exact
    assert epsilon.value == float(exact)
    assert str(epsilon) == text.strip()
    assert Epsilon.parse(epsilon) is epsilon


def test_a_float_means_its_shortest_text():
    assert Epsilon.parse(0.1).exact == Fraction(1, 10)


@pytest.mark.parametrize(
    "text", ["0", "-1", "-8/255", "nan", "inf", "8/0", "", "eight", "1e999", "1e-999", "0x1p3", "9" * 70]
)
def test_bad_epsilon_is_one_line(text):
    with pytest.raises(InputError) as caught:
        Epsilon.parse(text)
    assert "\n" not in str(caught.value)
    assert "ε" in str(caught.value)


def test_norms():
    assert parse_norm("l2") == "l2"
    with pytest.raises(InputError, match="linf, l2, l1"):
        parse_norm("l3")


def test_domain_box_is_rounded_inwards_and_holds_x():
    domain = Domain(0.1, 0.7)
    x = torch.tensor([[0.1, 0.3, 0.7]])
    lower, upper = domain.box(x)
    assert (lower <= x).all()
    assert (upper >= x).all()
    # 0.1 and 0.7 in float32 lie outside [0.1, 0.7] or inside; a middle value sees the inward bounds.
    assert lower[0, 1].double() >= 0.1
    assert upper[0, 1].double() <= 0.7


def test_domain_sides():
    assert Domain().bounded
    assert Domain(0, float("inf")).bounded
    assert not Domain.unbounded().bounded
    for lower, upper in ((1, 1), (1, 0), (float("nan"), 1)):
        with pytest.raises(InputError):
            Domain(lower, upper)

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robench.metrics import carried_lower
from robench.threat import NORMS

POWER = {("l2", "linf"): 1, ("l1", "l2"): 1, ("l1", "linf"): 2}  # divided by d ** (power / 2)


@given(st.sampled_from(list(POWER)), st.integers(1, 200_000), st.floats(0, 1e6))
def test_division_is_rounded_down_and_tight(pair, dimension, radius):
    source, target = pair
    out = Fraction(float(carried_lower(np.array([radius]), source, target, dimension)[0]))
    # out <= radius / d ** (power / 2), squared and without roots
    assert (out**2) * dimension ** POWER[pair] <= Fraction(radius) ** 2
    assert float(out) >= radius / dimension ** (POWER[pair] / 2) * (1 - 1e-12) - 5e-324


steps = st.lists(st.integers(-64, 64).map(lambda k: k / 64), min_size=3, max_size=3)


@given(steps, st.sampled_from(list(itertools.permutations(NORMS, 2))))
def test_a_point_outside_the_certified_ball_is_outside_the_carried_one(delta, pair):
    """If every misclassified point is further than l in one norm, none is within the carried radius in the other."""
    source, target = pair
    size = {"linf": np.max, "l2": np.linalg.norm, "l1": np.sum}
    distance = {norm: float(size[norm](np.abs(delta))) for norm in NORMS}
    certified = np.array([distance[source]])  # the supremum of what could be certified around this point
    assert carried_lower(certified, source, target, 3)[0] <= distance[target] * (1 + 1e-12)


def test_stronger_norms_carry_over_unchanged_and_infinity_stays():
    lower = np.array([0.0, 0.25, np.inf])
    for source, target in [("linf", "l2"), ("linf", "l1"), ("l2", "l1"), ("l2", "l2")]:
        assert (carried_lower(lower, source, target, None) == lower).all()
    assert carried_lower(lower, "l1", "linf", 784)[2] == np.inf


@pytest.mark.parametrize("pair", list(POWER))
def test_without_the_dimension_nothing_is_carried_to_a_smaller_norm(pair):
    assert (carried_lower(np.array([0.5, np.inf]), *pair, None) == 0).all()

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from robench.metrics import clopper_pearson


@pytest.mark.parametrize("n", [1, 2, 5, 10, 37])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_coverage_is_at_least_the_level_for_every_p(n, level):
    intervals = [clopper_pearson(k, n, level) for k in range(n + 1)]
    ends = [end for interval in intervals for end in interval]
    # Coverage as a function of p only changes at the ends of intervals.
    for p in {*ends, *(math.nextafter(end, 2) for end in ends), *(math.nextafter(end, -1) for end in ends), 0.5}:
        if 0 <= p <= 1:
            covered = sum(binom.pmf(k, n, p) for k in range(n + 1) if intervals[k].lower <= p <= intervals[k].upper)
            assert covered >= level - 1e-9


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_equals_the_inverted_exact_test(pair):
    count, n = pair
    lower, upper = clopper_pearson(count, n)
    reference = binomtest(count, n).proportion_ci(0.95, "exact")
    assert lower == pytest.approx(reference.low, abs=1e-9)
    assert upper == pytest.approx(reference.high, abs=1e-9)
    assert lower <= count / n <= upper


@pytest.mark.parametrize("n", [1, 10, 500])
def test_edges_in_closed_form(n):
    assert clopper_pearson(0, n) == (0.0, pytest.approx(1 - 0.025 ** (1 / n), rel=1e-12))
    assert clopper_pearson(n, n) == (pytest.approx(0.025 ** (1 / n), rel=1e-12), 1.0)


def test_no_samples_say_nothing():
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("count", "n", "level"), [(-1, 3, 0.95), (4, 3, 0.95), (1, 3, 0.0), (1, 3, 1.0)])
def test_impossible_counts_and_levels_are_refused(count, n, level):
    with pytest.raises(ValueError, match=r"proportion|level"):
        clopper_pearson(count, n, level)

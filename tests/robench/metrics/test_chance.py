import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from robench.metrics import LEAST_CONFIDENCE, Radii, claims, contradictions_by_chance, most_by_chance

INF = np.inf

confidences = st.sampled_from([0.999, 0.99, 0.96, 0.5, None])
rows = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from([0.0, 0.1, 0.2, 0.5]), st.sampled_from([0.999, 0.99, 0.96, 0.5, None])
    ),
    max_size=8,
)


def brute(rows, sample, *, lower):
    """The rule of DESIGN 1, consequence 6, one sample at a time in exact steps."""
    mine = [(radius, confidence) for slot, radius, confidence in rows if slot == sample]
    strong, weak = (max, min) if lower else (min, max)
    if not mine:
        return (0.0 if lower else np.inf), 1.0
    if all(confidence is not None for _, confidence in mine):
        union = 1 - sum(1 - confidence for _, confidence in mine)
        if union >= LEAST_CONFIDENCE:
            return strong(radius for radius, _ in mine), union
    known = [confidence for _, confidence in mine if confidence is not None]
    return weak(radius for radius, _ in mine), max(known) if known else None


@given(rows, st.booleans())
def test_rows_combine_by_the_union_bound_or_not_at_all(rows, lower):
    slot = np.array([row[0] for row in rows], dtype=np.int64)
    radius = np.array([row[1] for row in rows], dtype=float)
    confidence = np.array([np.nan if row[2] is None else row[2] for row in rows], dtype=float)
    combined = claims(slot, radius, confidence, 4, lower=lower)
    for sample in range(4):
        expected, trust = brute(rows, sample, lower=lower)
        assert combined.radius[sample] == expected
        if trust is None:
            assert np.isnan(combined.confidence[sample])
        else:
            assert combined.confidence[sample] == pytest.approx(trust, abs=1e-12)


def test_seeds_cannot_buy_radius():
    """A certificate that is wrong with probability α: after 1000 seeds the best one is worthless, and not believed."""
    wrong = np.zeros(1000)
    wrong[7] = 3.0
    combined = claims(np.zeros(1000, np.int64), wrong, np.full(1000, 0.999), 1, lower=True)
    assert combined.radius[0] == 0.0


def test_most_by_chance_is_the_binomial_quantile():
    # SOURCES 5.1: .008 of 500 at alpha = rho = .001
    assert most_by_chance(500, 0.001) == 4
    for n, alpha in [(1, 0.5), (100, 0.01), (500, 0.001), (10_000, 0.001)]:
        k = most_by_chance(n, alpha)
        assert binom.sf(k, n, alpha) <= 1e-3
        assert k == 0 or binom.sf(k - 1, n, alpha) > 1e-3
    assert most_by_chance(0, 0.1) == most_by_chance(10, 0.0) == 0


def claimed(n, broken, *, below=0.999, above=1.0, unknown=()):
    """Radii of n samples with the claim r* ≥ 1; misclassified points at 0.5 of the first `broken` ones."""
    upper = np.where(np.arange(n) < broken, 0.5, INF)
    confidence = np.full(n, below)
    confidence[list(unknown)] = np.nan
    return Radii(
        norm="l2", sample=10 + np.arange(n), correct=np.ones(n, bool), lower=np.zeros(n), upper=upper,
        claimed_lower=np.ones(n), lower_confidence=confidence, claimed_upper=np.full(n, INF),
        upper_confidence=np.full(n, above), failed=np.full(n, INF),
    )  # fmt: skip


def test_contradictions_are_compared_with_the_quantile_whatever_the_budget():
    for broken in (0, 1, 5, 6):
        found = contradictions_by_chance(claimed(1000, broken))
        assert list(found.samples) == list(range(10, 10 + broken))
        assert (found.observed, found.n, found.expected) == (broken, 1000, binom.ppf(0.999, 1000, 0.001))
        assert found.alpha == pytest.approx(0.001)
        assert found.too_many == (broken > 5)
    assert contradictions_by_chance(claimed(1000, 6), {10, 999}).observed == 5
    # Both sides can be wrong: their α add up.
    assert contradictions_by_chance(claimed(1000, 6, above=0.999)).alpha == pytest.approx(0.002)
    assert not contradictions_by_chance(claimed(1000, 6, above=0.999)).too_many
    # Proofs on both sides are no matter of chance.
    assert contradictions_by_chance(claimed(1000, 0, below=1.0)).expected == 0


def test_nothing_is_concluded_where_no_confidence_is_told():
    silent = contradictions_by_chance(claimed(1000, 6, unknown=range(1000)))
    assert (silent.observed, silent.alpha, silent.expected, silent.too_many) == (6, None, None, False)
    some = contradictions_by_chance(claimed(1000, 6, unknown=[0]))
    assert (some.observed, some.expected, some.too_many) == (6, None, False)
    # Silence about other samples excuses nothing.
    assert contradictions_by_chance(claimed(1000, 6, unknown=range(6, 500))).too_many
    enough = contradictions_by_chance(claimed(1000, 7, unknown=[0]))
    assert (list(enough.samples), enough.n, enough.too_many) == (list(range(11, 17)), 999, True)

"""What many certificates say together."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binom

from oracles.binomial import at_most_by_chance, exact_tail
from robench.binomial import lower_bound
from robench.metrics._statement import DatasetStatement, dataset_statement


@pytest.mark.parametrize("rho", [0.2, 0.05, 0.001])
@pytest.mark.parametrize("alpha", [0.3, 0.01, 0.001])
@pytest.mark.parametrize("m", [1, 2, 20, 100])
def test_false_certificates_are_the_exact_quantile(m, alpha, rho):
    found = dataset_statement(m, alpha, rho).false_at_most
    assert exact_tail(found + 1, m, alpha) <= Fraction(rho)
    assert found == 0 or exact_tail(found, m, alpha) > Fraction(rho * (1 - 1e-8))


def test_the_known_figure():
    """SOURCES 5.1: .008 of 500 at α = ρ = .001."""
    found = dataset_statement(500, 0.001, 0.001, 300)
    assert found == DatasetStatement(0.001, 0.001, 300, 4, 296, float(lower_bound(300, 500, 0.001)) - 0.001)
    assert dataset_statement(10_000, 0.001, 0.001).false_at_most == binom.ppf(0.999, 10_000, 0.001)


def test_no_more_is_false_than_was_certified():
    assert dataset_statement(500, 0.01, 0.001, 2) == DatasetStatement(0.01, 0.001, 2, 2, 0, 0.0)
    assert dataset_statement(500, 0.01, 0.001, 0) == DatasetStatement(0.01, 0.001, 0, 0, 0, 0.0)


def test_both_statements_hold_as_often_as_they_say():
    """30 % of the population are robust and always certified, the rest falsely at rate α."""
    m, alpha, rho, trials = 200, 0.02, 0.05, 40_000
    rng = np.random.default_rng(0)
    robust = rng.binomial(m, 0.3, trials)
    false = rng.binomial(m - robust, alpha)
    wrong = broken = 0
    for certified in np.unique(robust + false).tolist():
        said = dataset_statement(m, alpha, rho, certified)
        mine = robust + false == certified
        wrong += int((false[mine] > said.false_at_most).sum())
        broken += int(mine.sum()) * (said.population_at_least > 0.3)
    assert wrong <= at_most_by_chance(trials, rho)
    assert broken <= at_most_by_chance(trials, rho)


@pytest.mark.parametrize("wrong", [(0, 0.1, 0.1), (5, 0.1, 0.1, 6), (5, 0.1, 0.1, -1), (5, 0, 0.1), (5, 0.1, 1.0)])
def test_refusals(wrong):
    with pytest.raises(ValueError, match=r"samples|alpha"):
        dataset_statement(*wrong)

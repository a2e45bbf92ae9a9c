import itertools
import random
import time
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robench.metrics import holm, mcnemar, rank_ranges

outcome = st.dictionaries(st.integers(0, 12), st.booleans())


def sign_test(b, c):
    """Two-sided exact sign test by enumerating all 2 ** n assignments of the discordant pairs."""
    n, extreme = b + c, max(b, c)
    hits = sum(1 for flips in itertools.product((0, 1), repeat=n) if max(sum(flips), n - sum(flips)) >= extreme)
    return hits / 2**n


@given(outcome, outcome)
def test_mcnemar_is_the_enumerated_sign_test_on_common_samples(first, second):
    common = first.keys() & second.keys()
    test = mcnemar(first, second)
    b = sum(first[i] and not second[i] for i in common)
    c = sum(second[i] and not first[i] for i in common)
    assert (test.n, test.only_first, test.only_second) == (len(common), b, c)
    assert test.p == pytest.approx(sign_test(b, c), abs=1e-12)


def test_mcnemar_on_many_samples():
    # 60 against 40 of 100 discordant pairs: the textbook 0.0569.
    first = {i: i < 60 for i in range(100)}
    second = {i: not first[i] for i in first}
    exact = 2 * sum(comb(100, k) for k in range(60, 101)) / 2**100
    assert mcnemar(first, second).p == pytest.approx(exact, rel=1e-9)
    assert exact == pytest.approx(0.0569, abs=1e-4)


def test_holm_on_the_worked_example():
    # Holm 1979: sorted p times (m - rank), made monotone.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_raw_and_bonferroni(p_values):
    for raw, adjusted in zip(p_values, holm(p_values), strict=True):
        assert raw <= adjusted <= min(1.0, raw * len(p_values)) + 1e-12


def test_ranks_are_ranges_where_the_data_cannot_tell():
    generator = random.Random(0)
    strong = {i: i % 10 < 8 for i in range(500)}
    same = {i: value if generator.random() > 0.02 else not value for i, value in strong.items()}
    weak = {i: i % 10 < 4 for i in range(500)}
    assert rank_ranges([weak, strong, same]) == [(3, 3), (1, 2), (1, 2)]
    assert rank_ranges([strong]) == [(1, 1)]
    assert rank_ranges([]) == []
    # Nothing in common: nothing can be told.
    assert rank_ranges([{0: True}, {1: False}]) == [(1, 2), (1, 2)]


@given(st.lists(outcome, max_size=5), st.sampled_from([0.5, 0.8, 0.95]))
def test_ranks_follow_from_the_test_of_every_pair(outcomes, level):
    """All pairs are compared at once; one by one, by `mcnemar`, nothing else may come out."""
    pairs = list(itertools.combinations(range(len(outcomes)), 2))
    tests = [mcnemar(outcomes[i], outcomes[j]) for i, j in pairs]
    told = [
        (i, j) if test.only_first > test.only_second else (j, i)
        for (i, j), test, p in zip(pairs, tests, holm([test.p for test in tests]), strict=True)
        if p <= 1 - level
    ]
    assert rank_ranges(outcomes, level) == [
        (1 + sum(worse == i for _, worse in told), len(outcomes) - sum(better == i for better, _ in told))
        for i in range(len(outcomes))
    ]


def test_a_board_of_many_classifiers_is_ranked_in_a_moment():
    generator = random.Random(1)
    outcomes = [{i: generator.random() < share / 200 for i in range(300)} for share in range(200)]
    begun = time.process_time()
    ranks = rank_ranges(outcomes)
    assert time.process_time() - begun < 2  # pair by pair it took 15 s
    assert ranks[0][1] == 200
    assert ranks[199][0] == 1

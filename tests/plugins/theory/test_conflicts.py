import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.conflicts import exact_power, is_conflict, make, smallest_epsilon
from robench.threat import NORMS, Domain
from robench_plugins.theory import _conflicts, _measures
from robench_plugins.theory._conflicts import Conflicts
from robench_plugins.theory._points import read_points


def scanned(samples, norm, epsilons, capacity=10**6):
    conflicts = Conflicts(read_points(samples, norm), norm, epsilons, capacity)
    steps = []
    conflicts.scan(lambda: steps.append(1))
    assert len(steps) == conflicts.steps()
    return conflicts


def edges(conflicts, k):
    taken = conflicts.take(k)
    return sorted(zip(taken.i.tolist(), taken.j.tolist(), strict=True))


def counts(samples, norm, epsilons):
    return scanned(samples, norm, sorted(epsilons)).counts.cumsum().tolist()


def below(value):
    return math.nextafter(value, 0.0)


def above(value):
    return math.nextafter(value, math.inf)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 2.0), ("l2", 2.5), ("l1", 3.5)])
@pytest.mark.parametrize("domain", [Domain(0, 255), Domain.unbounded()])
def test_balls_that_touch_share_a_point(norm, eps, domain):
    """(0, 0) and (3, 4): the distances are whole, so closed balls of half of them meet, and smaller ones do not."""
    samples = make([[0, 0], [3, 4]], [0, 1], domain)
    assert counts(samples, norm, [below(eps), eps]) == [0, 1]
    farther = make([[0, 0], [3, np.nextafter(np.float32(4), np.float32(5))]], [0, 1], domain)
    assert counts(farther, norm, [eps, above(eps), eps + 1e-6]) == [0, 0, 1]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["grid", "pixels", "uniform", "wide", "far out"])
def test_every_pair_is_decided_exactly(norm, kind):
    """At the smallest double that is half of a pair's exact distance, and at the one below it."""
    draw = np.random.default_rng(5)
    x = {
        "grid": lambda: draw.integers(0, 17, (12, 5)) / 16,
        "pixels": lambda: draw.integers(0, 256, (12, 5)) / 255,
        "uniform": lambda: draw.random((12, 5)),
        "wide": lambda: draw.standard_normal((12, 5)) * 10.0 ** draw.integers(-20, 20, (12, 5)),
        "far out": lambda: draw.random((12, 5)) * 1e-3 + [1000, 0, 0, 0, 0],
    }[kind]().astype(np.float32)
    y = np.arange(12) % 3
    samples = make(x, y)
    pairs = [(i, j) for i, j in itertools.combinations(range(12), 2) if y[i] != y[j]]
    first = {smallest_epsilon(x[i], x[j], norm) for i, j in pairs}
    grid = sorted(first | set(map(below, first)))
    expected = [sum(is_conflict(x[i], x[j], norm, eps) for i, j in pairs) for eps in grid]
    assert counts(samples, norm, grid) == expected


def test_rounding_alone_would_decide_wrongly():
    """What the case above holds fast: the distances of the matrix product are off by more than what is asked."""
    x = (np.random.default_rng(5).random((2, 5)) * 1e-3 + [1000, 0, 0, 0, 0]).astype(np.float32)
    measure = _measures.measure_of(x, "l2")
    product = measure.values(measure.operand(np.arange(2)), measure.operand(np.arange(2)), None)
    exact = float(exact_power(x[0], x[1], "l2"))
    assert abs(product[0, 1] - exact) > 1e-6 * exact


@given(st.data())
def test_edges_are_the_pairs_that_conflict(data):
    """In small blocks, with every class present or not, held or counted."""
    norm = data.draw(st.sampled_from(NORMS))
    n = data.draw(st.integers(2, 14))
    x = data.draw(st.lists(st.lists(st.integers(0, 6), min_size=2, max_size=2), min_size=n, max_size=n))
    y = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    eps = sorted(data.draw(st.lists(st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 9.0]), min_size=1, max_size=4)))
    capacity = data.draw(st.integers(0, 40))
    before = _conflicts._ROWS, _conflicts._COLUMNS
    _conflicts._ROWS, _conflicts._COLUMNS = 2, 3
    try:
        conflicts = scanned(make(x, y), norm, eps, capacity)
    finally:
        _conflicts._ROWS, _conflicts._COLUMNS = before
    order = np.argsort(y, kind="stable")
    xs, ys = np.array(x)[order], np.array(y)[order]
    first = {}
    for i, j in itertools.combinations(range(n), 2):
        if ys[i] != ys[j]:
            first[i, j] = sum(not is_conflict(xs[i], xs[j], norm, e) for e in eps)
    every = [sorted(p for p, k in first.items() if k == at) for at in range(len(eps))]
    assert conflicts.counts.tolist() == [len(some) for some in every]
    assert sum(len(some) for some in every[: conflicts.complete]) <= capacity
    assert all(edges(conflicts, k) == every[k] for k in range(conflicts.complete))
    assert all(edges(conflicts, k) == [] for k in range(conflicts.complete, len(eps)))
    for c, e in itertools.combinations(range(len(set(range(max(y) + 1)))), 2):
        apart = [float(exact_power(xs[i], xs[j], norm)) for i, j in first if (ys[i], ys[j]) == (c, e)]
        nearest = min(apart, default=math.inf)
        assert conflicts.nearest[c, e] == pytest.approx(math.sqrt(nearest) if norm == "l2" else nearest, rel=1e-14)


@pytest.mark.parametrize("norm", NORMS)
def test_distances_beyond_float32_are_told(norm):
    x = np.array([-3e38, 3e38], np.float32)
    assert scanned(make(x, [0, 1]), norm, [1.0]).nearest[0, 1] == pytest.approx(float(x[1]) * 2, rel=1e-14)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1.0, 1e-18, 1e18])
def test_separations_are_rounded_down(norm, scale):
    x = (np.random.default_rng(1).standard_normal((40, 6)) * scale).astype(np.float32)
    conflicts = scanned(make(x, np.arange(40) % 2), norm, [1e-30])
    nearest = min(exact_power(a, b, norm) for a in x[::2] for b in x[1::2])
    found = conflicts.nearest[0, 1]
    power = 2 if norm == "l2" else 1
    assert _measures.Fraction(found) ** power <= nearest
    assert found == pytest.approx(float(nearest) ** (1 / power), rel=1e-11)


@pytest.mark.parametrize("norm", NORMS)
def test_screening_leaves_nothing_out(norm):
    """Many coordinates, few close pairs: the lower bounds settle most pairs, and none wrongly."""
    draw = np.random.default_rng(2)
    centres = draw.random((40, 200))
    x = (centres[draw.integers(0, 40, 240)] + 0.02 * draw.random((240, 200))).astype(np.float32)
    y = draw.integers(0, 3, 240)
    order = np.argsort(y, kind="stable")
    ys, xs = y[order], x[order].astype(np.float64)
    d = {
        "linf": lambda a: np.abs(xs - a).max(1),
        "l1": lambda a: np.abs(xs - a).sum(1),
        "l2": lambda a: np.sqrt(np.square(xs - a).sum(1)),
    }[norm]
    apart = np.array([np.where(ys > ys[i], d(xs[i]), np.inf) for i in range(240)])
    # Between distances, so that rounding plays no part here.
    values = np.sort(apart[np.isfinite(apart)])
    eps = [(values[k] + values[k + 1]) / 4 for k in (3, 200, 5000)]
    conflicts = scanned(make(x, y), norm, eps)
    assert conflicts.counts.cumsum().tolist() == [4, 201, 5001]
    assert edges(conflicts, 0) == sorted(zip(*(k.tolist() for k in np.nonzero(apart <= 2 * eps[0])), strict=True))
    assert np.nanmin(conflicts.nearest) == pytest.approx(values[0], rel=1e-12)


def test_between_finds_what_is_there_and_no_more_than_asked():
    draw = np.random.default_rng(3)
    x, y = draw.random((300, 2)), np.arange(300) % 3
    conflicts = scanned(make(x, y), "l2", [0.02, 0.05, 0.4])
    first = [*edges(conflicts, 0), *edges(conflicts, 1)]
    left, right = np.arange(0, 300, 2, dtype=np.int32), np.arange(0, 300, 3, dtype=np.int32)
    found = conflicts.between(left, right, 1, 10**6)
    both = {(i, j) for i, j in first} | {(j, i) for i, j in first}
    wanted = {(i, j) for i, j in both if i % 2 == 0 and j % 3 == 0}
    assert set(zip(found.i.tolist(), found.j.tolist(), strict=True)) == wanted
    few = conflicts.between(left, right, 2, 100)
    assert 0 < len(few) < 200
    assert len(conflicts.between(left[:0], right, 2, 100)) == len(conflicts.between(left, right[:0], 2, 100)) == 0


def test_a_cast_that_moves_samples_apart_takes_the_conflict_away():
    """0.5 and 0.5 + 1e-9 coincide in float32; 0.5 + 4e-8 moves 2e-8 further, to the next float32 number."""
    samples = make([[0.5], [0.5 + 4e-8]], [0, 1], dtype=np.float64)
    assert counts(samples, "linf", [2.1e-8, 2.9e-8, 4.2e-8]) == [0, 0, 1]
    same = make([[0.5], [0.5 + 1e-9]], [0, 1], dtype=np.float64)
    assert counts(same, "linf", [0.4e-9, 1.1e-9]) == [0, 1]


@pytest.mark.parametrize("norm", NORMS)
def test_a_conflict_of_doubles_is_one_of_their_casts_too(norm):
    """At ε between and around the two distances of each pair, nothing that either precision denies is claimed."""
    draw = np.random.default_rng(4)
    claimed = 0
    for _ in range(60):
        x = draw.random((2, 3))
        cast = x.astype(np.float32)
        ends = [smallest_epsilon(*points, norm) for points in (x, cast)]
        grid = sorted({*ends, *map(below, ends), sum(ends) / 2, max(ends) + 2e-7})
        for eps, count in zip(grid, counts(make(x, [0, 1], dtype=np.float64), norm, grid), strict=True):
            assert not count or (is_conflict(*x, norm, eps) and is_conflict(*cast, norm, eps))
            claimed += count
    assert claimed >= 60


def test_a_domain_between_two_float32_numbers():
    """The common point has to lie in the domain that both precisions know."""
    samples = make([[0.1], [0.1]], [0, 1], Domain(0, 0.1), np.float64)
    assert counts(samples, "linf", [1e-12, 1e-7]) == [0, 1]
    nowhere = make([[0.1], [0.1]], [0, 1], Domain(below(0.1), 0.1), np.float64)
    assert counts(nowhere, "linf", [1e-12, 1e3]) == [0, 0]


def test_samples_beyond_float32_conflict_with_nothing():
    samples = make([[0.0], [1e300], [1.0]], [0, 1, 1], dtype=np.float64)
    assert counts(samples, "l2", [1.0, 1e308]) == [1, 1]

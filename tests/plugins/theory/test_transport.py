import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import norm as gaussian

from oracles.conflicts import exact_power, fewest_errors, is_conflict, make
from robench.contracts import Bound
from robench.errors import DataError, InputError
from robench.threat import NORMS, Domain
from robench_plugins.theory import transport
from robench_plugins.theory.transport import Transport


def evaluate(samples, norm, eps):
    return Transport().evaluate(samples, norm, eps, lambda done, steps: None)


def errors(samples, norm, eps):
    return [detail["errors"] for detail in evaluate(samples, norm, eps).detail]


@st.composite
def problems(draw, classes=4, most=8):
    n = draw(st.integers(1, most))
    x = draw(st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=2), min_size=n, max_size=n))
    y = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    return make(x, y)


EPS = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0]


def test_it_is_a_bound():
    assert isinstance(Transport(), Bound)


def test_every_classifier_on_a_line():
    """All 8,192 classifiers of 0, 1/2, …, 6: where closed balls around whole numbers meet, they do so there."""
    places = np.arange(13) / 2
    labels = np.array(list(itertools.product([0, 1], repeat=13)), np.int8)
    draw = np.random.default_rng(0)
    for _ in range(20):
        x, y = draw.integers(0, 7, 6), draw.integers(0, 2, 6)
        eps = [0.5, 1.0, 1.5, 2.5]
        best = []
        for e in eps:
            wrong = np.zeros(len(labels), int)
            for point, label in zip(x, y, strict=True):
                wrong += (labels[:, abs(places - point) <= e] != label).any(1)
            best.append(wrong.min())
        for norm in NORMS:
            assert errors(make(x, y, Domain(0, 6)), norm, eps) == best


@given(problems(classes=2), st.sampled_from(NORMS))
def test_two_classes_agree_with_brute_force(samples, norm):
    assert errors(samples, norm, EPS) == [fewest_errors(samples, norm, eps) for eps in EPS]


@given(problems(), st.sampled_from(NORMS))
def test_more_classes_are_the_linear_program_and_never_above_the_truth(samples, norm):
    found = errors(samples, norm, EPS)
    n, y = len(samples), samples.y
    for eps, value in zip(EPS, found, strict=True):
        pairs = [
            (i, j)
            for i, j in itertools.combinations(range(n), 2)
            if y[i] != y[j] and is_conflict(samples.x[i], samples.x[j], norm, eps)
        ]
        rows = np.zeros((len(pairs), n))
        for row, pair in zip(rows, pairs, strict=True):
            row[list(pair)] = 1
        least = linprog(-np.ones(n), rows if pairs else None, np.ones(len(pairs)) if pairs else None, bounds=(0, 1))
        assert value == pytest.approx(n + least.fun, abs=1e-9)
        assert value <= fewest_errors(samples, norm, eps)


@given(problems(most=16), st.sampled_from(NORMS), st.data())
def test_what_holds_of_every_curve(samples, norm, data):
    curve = evaluate(samples, norm, EPS)
    n, found = len(samples), [detail["errors"] for detail in curve.detail]
    counts = np.bincount(samples.y)
    assert found == sorted(found)
    assert all(value <= min(n / 2, n - counts.max()) for value in found)
    for value, detail in zip(curve.value, curve.detail, strict=True):
        assert (detail["n"] - detail["errors"]) / n <= value <= (n - detail["errors"]) / n + 1e-15
    order = data.draw(st.permutations(range(n)))
    assert errors(samples.select(order), norm, EPS) == found
    part = errors(samples.select(order[: data.draw(st.integers(1, n))]), norm, EPS)
    assert all(few <= many for few, many in zip(part, found, strict=True))
    # ‖·‖∞ ≤ ‖·‖₂ ≤ ‖·‖₁: the balls shrink in this order.
    l1, l2, linf = (errors(samples, one, EPS) for one in ("l1", "l2", "linf"))
    assert all(a <= b <= c for a, b, c in zip(l1, l2, linf, strict=True))
    pairs = [(a, b) for a, b in itertools.combinations(range(n), 2) if samples.y[a] != samples.y[b]]
    power = 2 if norm == "l2" else 1
    nearest = min((exact_power(samples.x[a], samples.x[b], norm) for a, b in pairs), default=math.inf)
    for eps, value in zip(EPS, found, strict=True):
        assert (value > 0) == ((2 * eps) ** power >= nearest)


@pytest.mark.parametrize("capacity", [0, 1, 2000])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("shape", ["clusters", "cube"])
def test_conflicts_that_are_too_many_to_hold_are_looked_for_again(capacity, classes, shape, monkeypatch):
    """Held or not, the sizes are the same; not held, they need more than one look."""
    draw = np.random.default_rng(6)
    x, grid = draw.random((400, 3)), [0.01, 0.02, 0.04, 0.1, 0.3, 2.0]
    if shape == "clusters":
        x, grid = draw.random((5, 3))[draw.integers(0, 5, 400)] + 0.05 * x, [0.001, 0.002, 0.004, 0.01, 0.1, 2.0]
    samples = make(x, draw.integers(0, classes, 400))
    held = errors(samples, "l2", grid)
    assert 0 < held[1] < held[-1]
    monkeypatch.setattr(transport, "_HELD", capacity * 64)
    looks = []
    real = transport.Conflicts.between

    def between(self, *asked):
        looks.append(asked)
        return real(self, *asked[:-1], 60)

    monkeypatch.setattr(transport.Conflicts, "between", between)
    assert errors(samples, "l2", grid) == held
    assert len(looks) > (5 if capacity < 2000 else 0)


def test_when_all_balls_meet_only_one_class_can_be_right_or_half_of_all():
    """A complete multipartite graph: the errors are n − the largest class, and n/2 where no class has half."""
    draw = np.random.default_rng(7)
    for sizes in ([30, 10], [30, 10, 10], [12, 11, 8], [1, 1, 1]):
        y = draw.permutation(np.repeat(np.arange(len(sizes)), sizes))
        n = len(y)
        samples = make(draw.random((n, 4)), y, Domain())
        assert errors(samples, "linf", [0.5]) == [min(n - max(sizes), n / 2)]


def test_gaussians_reach_the_closed_form():
    """N(±μ, σ²) on a line: Q((μ − ε)/σ) in the limit (Bhagoji et al. 2019, section 4), and no more than a threshold."""
    n, mu, sigma = 1500, 1.0, 0.7
    draw = np.random.default_rng(8)
    y = np.repeat([0, 1], n)
    x = (2 * y - 1) * mu + sigma * draw.standard_normal(2 * n)
    eps = [0.1, 0.3, 0.6]
    for e, found in zip(eps, errors(make(x, y), "l2", eps), strict=True):
        limit = gaussian.sf((mu - e) / sigma)
        threshold = np.count_nonzero((2 * y - 1) * x.astype(np.float32) <= e)
        assert found <= threshold
        assert abs(found / (2 * n) - limit) < 4 * math.sqrt(limit * (1 - limit) / (2 * n))


def test_separation_is_the_distance_of_the_nearest_samples():
    samples = make([[0, 0], [3, 4], [9, 4], [9, 5]], [0, 1, 3, 3])
    for norm, matrix in {
        "linf": [4, 9, 6],
        "l2": [5, math.sqrt(97), 6],
        "l1": [7, 13, 6],
    }.items():
        told = evaluate(samples, norm, [1.0]).facts["separation"]
        assert told["classes"] == ["a", "b", "c", "d"]
        rows = told["distance"]
        assert [rows[0][1], rows[0][3], rows[1][3]] == pytest.approx(matrix, rel=1e-15)
        assert all(rows[i][j] == rows[j][i] for i in range(4) for j in range(4))
        assert all(rows[i][i] is None and rows[2][i] is None for i in range(4))
        assert rows[0][3] ** 2 <= 97 or norm != "l2"


def test_identical_samples_of_two_classes_cost_an_error_at_every_epsilon():
    samples = make([[0.3], [0.3], [0.9], [0.3]], [0, 1, 1, 1], Domain())
    curve = evaluate(samples, "l1", [1e-300, 0.1])
    assert [detail["errors"] for detail in curve.detail] == [1, 1]
    assert curve.facts["separation"]["distance"] == [[None, 0.0], [0.0, None]]


def test_without_two_classes_nothing_is_forced():
    for labels in ([0], [0, 0, 0], [2, 2]):
        curve = evaluate(make(np.zeros(len(labels)), labels), "l2", [1.0, 1e308])
        assert list(curve.value) == [1.0, 1.0]
        assert all(value is None for row in curve.facts["separation"]["distance"] for value in row)


def test_epsilons_may_repeat_and_come_in_any_order():
    samples = make([0, 1, 3, 7], [0, 1, 0, 1])
    grid = [2.0, 0.5, 2.0, 1.0, 1e308]
    curve = evaluate(samples, "l2", grid)
    alone = [evaluate(samples, "l2", [eps]) for eps in grid]
    assert list(curve.value) == [one.value[0] for one in alone]
    assert list(curve.detail) == [one.detail[0] for one in alone]


def test_many_classes_leave_the_separation_out():
    samples = make(np.arange(8), np.arange(8))
    many = transport.Samples(samples.x, samples.y, samples.index, samples.domain, tuple(map(str, range(101))))
    assert evaluate(many, "l2", [0.5]).facts is None
    assert errors(many, "l2", [0.5]) == [4.0]


def test_values_are_rounded_up():
    """2/3 lies above the double next to it."""
    curve = evaluate(make([0, 0, 5], [0, 1, 0]), "linf", [0.1])
    assert curve.value == [math.nextafter(2 / 3, 1)]
    assert (curve.direction, curve.scope) == ("ceiling", "samples")


def test_progress_ends_at_its_total():
    seen = []
    samples = make(np.arange(30), np.arange(30) % 3)
    Transport().evaluate(samples, "l2", [0.5, 1.0], lambda done, steps: seen.append((done, steps)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1] == (len(seen), len(seen))


def test_refused():
    with pytest.raises(DataError, match="nan"):
        evaluate(make([0.1, math.nan], [0, 1]), "l2", [1.0])
    with pytest.raises(DataError, match="no samples"):
        evaluate(make(np.zeros((0, 2)), []), "l2", [1.0])
    with pytest.raises(InputError, match="no ε"):
        evaluate(make([0, 1], [0, 1]), "l2", [])

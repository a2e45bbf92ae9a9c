"""Nearest neighbours against brute force, and dimensions against those of known clouds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from robench.samples import Samples
from robench.scaling import intrinsic_dimension, median_distances
from robench.threat import Domain

SIZES = [100, 200, 400, 800, 1600]


def cloud(n: int, dimension: int, seed: int, ambient: int = 12) -> Samples:
    """Uniform points of a `dimension`-dimensional cube, turned into more dimensions."""
    generator = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(7).standard_normal((ambient, ambient)))[0]
    x = generator.random((n, dimension)) @ turn[:dimension]
    return Samples(x, np.zeros(n, np.int64), np.arange(n), Domain.unbounded(), ("0",))


def test_medians_are_those_of_all_pairs() -> None:
    queries, train = cloud(37, 5, 0), cloud(1600, 5, 1)
    order = np.random.default_rng(2).permutation(1600)
    parts = [train.select(np.sort(order[:n])) for n in SIZES]
    found = median_distances(queries, parts)
    for n, median in zip(SIZES, found, strict=True):
        x, y = np.asarray(queries.x[:]), np.asarray(train.x[:])[order[:n]]
        each = np.sqrt(((x[:, None] - y[None]) ** 2).sum(2)).min(1)
        assert median == pytest.approx(float(np.median(each)), rel=1e-9)


def test_queries_are_taken_from_all_through_the_samples() -> None:
    """Files lie class by class: the first thousand may all be of one, and here the only ones that are far."""
    train = cloud(50, 3, 0)
    x = np.concatenate([np.asarray(train.x[:])[:1].repeat(1000, 0) + 9.0, np.asarray(train.x[:]).repeat(40, 0)])
    queries = Samples(x, np.zeros(len(x), np.int64), np.arange(len(x)), Domain.unbounded(), ("0",))
    assert median_distances(queries, [train]) == [pytest.approx(0, abs=1e-6)]


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_the_dimension_of_a_cube_is_found(dimension: int) -> None:
    medians = np.array(
        [
            median_distances(
                cloud(1000, dimension, 10 + seed), [cloud(1600, dimension, seed).select(slice(0, n)) for n in SIZES]
            )
            for seed in range(4)
        ]
    ).T
    found = intrinsic_dimension(SIZES, medians)
    assert found is not None
    # Corners and edges of a cube make distances fall a little faster than n^(-1/d).
    assert found.dimension == pytest.approx(dimension, rel=0.12)
    assert found.interval[0] < found.dimension < found.interval[1]


def test_an_exact_power_gives_its_exponent() -> None:
    sizes = [10, 100, 1000]
    medians = np.array([[2.0], [2.0], [2.0]]) * np.array(sizes)[:, None] ** (-1 / 28)
    found = intrinsic_dimension(sizes, medians)
    assert found is not None
    assert found.dimension == pytest.approx(28)


def test_no_law_where_distances_are_zero_or_sizes_few_and_no_end_where_they_do_not_fall() -> None:
    assert intrinsic_dimension([1, 2], [[1.0], [0.5]]) is None
    assert intrinsic_dimension([1, 2, 4], [[1.0], [0.5], [0.0]]) is None
    flat = intrinsic_dimension([1, 2, 4, 8], [[1.0, 1.1], [1.1, 1.0], [1.0, 1.1], [1.05, 1.05]])
    assert flat is not None
    assert flat.interval[1] == math.inf

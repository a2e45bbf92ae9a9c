import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from robench_plugins.theory import _matching
from robench_plugins.theory._matching import Matching


def grown(left, right, batches, double_cover=False):
    matching, sizes = Matching(left, right, double_cover=double_cover), []
    for i, j in batches:
        matching.add(np.asarray(i, np.int32), np.asarray(j, np.int32))
        matching.grow()
        sizes.append(len(matching))
    return matching, sizes


def is_matching(matching, known):
    """Every pair is an edge, told by both sides, and no vertex has two."""
    pairs = [(i, int(j)) for i, j in enumerate(matching.left) if j >= 0]
    assert [(int(matching.right[j]), j) for _, j in pairs] == pairs
    assert np.count_nonzero(matching.right >= 0) == len(pairs)
    assert set(pairs) <= known


def scipy_size(left, right, edges):
    i, j = np.array(sorted(edges)).T if edges else ([], [])
    graph = csr_array((np.ones(len(i)), (i, j)), shape=(left, right))
    return int((maximum_bipartite_matching(graph) >= 0).sum())


@st.composite
def graphs(draw):
    left, right = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    every = list(itertools.product(range(left), range(right)))
    return left, right, draw(st.lists(st.lists(st.sampled_from(every), max_size=30), min_size=1, max_size=4))


@given(graphs(), st.sampled_from([1, 4, 1 << 21]))
def test_growing_matchings_have_scipys_sizes(graph, chunk):
    left, right, batches = graph
    before, _matching._CHUNK = _matching._CHUNK, chunk
    try:
        matching = Matching(left, right)
        known = set()
        for batch in batches:
            known |= set(batch)
            i, j = np.array(batch, np.int32).reshape(-1, 2).T
            matching.add(i, j)
            matching.grow()
            is_matching(matching, known)
            assert len(matching) == scipy_size(left, right, known)
    finally:
        _matching._CHUNK = before


@pytest.mark.parametrize("density", [0.001, 0.005, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_large_random_graphs(density, seed, monkeypatch):
    """With small chunks both directions of a level are taken, in several pieces."""
    monkeypatch.setattr(_matching, "_CHUNK", 1 << 10)
    draw = np.random.default_rng(seed)
    mask = draw.random((300, 400)) < density
    # Some vertices that only a few others can have, so that greedy is wrong.
    mask[:150] &= np.arange(400) < 170
    i, j = np.nonzero(mask)
    part = draw.random(len(i)) < 0.5
    matching, (first, last) = grown(300, 400, [(i[part], j[part]), (i[~part], j[~part])])
    is_matching(matching, set(zip(i.tolist(), j.tolist(), strict=True)))
    assert first == scipy_size(300, 400, set(zip(i[part].tolist(), j[part].tolist(), strict=True)))
    assert last == scipy_size(300, 400, set(zip(i.tolist(), j.tolist(), strict=True)))


@given(graphs())
def test_the_open_vertices_and_the_rest_are_koenigs_cover(graph):
    """Unreached left and reached right vertices touch every edge and are as many as the pairs: none is missing."""
    left, right, batches = graph
    edges = set(itertools.chain(*batches))
    matching, _ = grown(left, right, [np.array(sorted(edges)).reshape(-1, 2).T])
    reached, unreached = (set(part.tolist()) for part in matching.open())
    assert not any(i in reached and j in unreached for i, j in edges)
    assert (left - len(reached)) + (right - len(unreached)) == len(matching)


def test_before_any_edge_everything_is_open():
    reached, unreached = Matching(3, 2).open()
    assert (reached.tolist(), unreached.tolist()) == ([0, 1, 2], [0, 1])


def lp_errors(n, edges):
    """n − max Σ q, q_u + q_v ≤ 1 on every edge, 0 ≤ q ≤ 1, by HiGHS."""
    rows = np.repeat(np.arange(len(edges)), 2)
    limits = csr_array((np.ones(2 * len(edges)), (rows, np.ravel(edges))), shape=(len(edges), n)) if edges else None
    solved = linprog(-np.ones(n), limits, np.ones(len(edges)) if edges else None, bounds=(0, 1), method="highs")
    assert solved.status == 0
    return n + solved.fun


@pytest.mark.parametrize("degree", [0.5, 1, 2, 3, 8])
@pytest.mark.parametrize("seed", range(4))
def test_the_linear_program_is_half_a_matching_of_the_double_cover(degree, seed):
    n = 80
    draw = np.random.default_rng(seed)
    edges = [e for e in itertools.combinations(range(n), 2) if draw.random() < degree / n]
    _, (size,) = grown(n, n, [np.array(edges).reshape(-1, 2).T], double_cover=True)
    assert size / 2 == pytest.approx(lp_errors(n, edges), abs=1e-7)


def test_odd_cycles_have_half_integral_solutions():
    for n in (3, 5, 7):
        _, (size,) = grown(n, n, [(np.arange(n), np.roll(np.arange(n), 1))], double_cover=True)
        assert size == n


@given(graphs())
def test_on_a_bipartite_graph_the_double_cover_has_twice_the_matching(graph):
    left, right, batches = graph
    i, j = np.array(sorted(set(itertools.chain(*batches)))).reshape(-1, 2).T
    n = left + right
    assert grown(n, n, [(i, j + left)], double_cover=True)[1] == [2 * grown(left, right, [(i, j)])[1][0]]


@pytest.mark.parametrize("chunk", [7, 1 << 21])
def test_both_directions_of_a_level_reach_the_same_vertices(chunk, monkeypatch):
    """The unreached neighbours of the front, each with a parent in the front that is its neighbour."""
    monkeypatch.setattr(_matching, "_CHUNK", chunk)
    draw = np.random.default_rng(9)
    for _ in range(30):
        mask = draw.random((60, 50)) < draw.choice([0.02, 0.1, 0.5])
        matching = Matching(60, 50)
        matching.add(*(side.astype(np.int32) for side in np.nonzero(mask)))
        front = np.flatnonzero(draw.random(60) < 0.1).astype(np.int32)
        unreached = draw.random(50) < 0.7
        expected = np.flatnonzero(mask[front].any(0) & unreached).tolist()
        for reach in (matching._from_front, matching._from_rest):
            parent = np.full(50, -1, np.int32)
            assert sorted(reach(front, unreached.copy(), parent).tolist()) == expected
            assert all(parent[right] in front and mask[parent[right], right] for right in expected)

"""The search for pairs that contradict a Lipschitz constant: below the true one, and loud where L is too small."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.random_graphs import Draft, mlp, random_graph, step_names
from robench.errors import PluginError
from robench.graph import GraphClassifier
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.lipschitz.constant import lipschitz_constant
from robench_plugins.lipschitz.margin import LipschitzMargin
from robench_plugins.lipschitz.pairs import expansion


def linear(weight):
    return mlp([np.asarray(weight, dtype=float)], [np.zeros(len(weight))])


@pytest.mark.parametrize("seed", range(5))
def test_a_linear_map_is_expanded_by_its_norm(seed):
    weight = np.random.default_rng(seed).normal(size=(6, 9))
    graph = linear(weight)
    norm = np.linalg.norm(weight, 2)
    assert 0.98 * norm < expansion(graph, lipschitz_constant(graph), 24) <= norm


def test_a_rotation_is_met_exactly():
    graph = linear([[0.6, -0.8], [0.8, 0.6]])
    assert expansion(graph, lipschitz_constant(graph), 1) == pytest.approx(1, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(step_names()), max_size=6), st.integers(0, 2**31))
def test_nothing_sound_is_contradicted(steps, seed):
    graph = random_graph(steps, np.random.default_rng(seed))
    constant = lipschitz_constant(graph)
    assert 0 <= expansion(graph, constant, 6) <= constant.value


def test_what_is_too_small_is_an_error_that_says_by_how_much():
    graph = linear(3 * np.eye(4))
    with pytest.raises(PluginError, match=r"lipschitz: .* apart by 2\.99.* times their distance, L was 2\.9"):
        expansion(graph, replace(lipschitz_constant(graph), value=2.9), 4)


@pytest.mark.parametrize("size", [1e300, 1e-300, 0.0])
def test_what_cannot_be_computed_contradicts_nothing(size):
    graph = mlp([np.full((3, 4), size), np.full((2, 3), size)], [np.zeros(3), np.zeros(2)])
    constant = lipschitz_constant(graph)
    assert 0 <= expansion(graph, constant, 3) <= constant.value


def test_it_is_noted_beside_each_radius_whatever_the_batch():
    d = Draft((4,), np.random.default_rng(0)).linear(8).add("relu").linear(3)
    x, y = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(6, dtype=torch.int64)

    def detail(rows, **settings):
        classifier = GraphClassifier(d.graph())
        stream = Stream.for_samples(0, "lipschitz", range(6)).select(rows)
        found = LipschitzMargin(**settings).certify(classifier, x[rows], y[rows], Threat("l2", None, Domain()), stream)
        return found.detail

    (whole, first) = (detail(torch.arange(n)) for n in (6, 1))
    assert whole[0] == first[0]
    assert 0 < whole[0]["expansion"] <= whole[0]["lipschitz"]
    assert math.isfinite(whole[0]["margin"])
    assert "expansion" not in detail(torch.arange(6), pairs=0)[0]

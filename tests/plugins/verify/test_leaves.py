"""Leaves: linear programs that are exact, empty ones, and answers of a solver that are wrong."""

import itertools
import math

import numpy as np
import pytest
import torch

from oracles.enumeration import TOLERANCE, exact_radius, random_net
from oracles.piecewise import SPACE, case, started, values
from oracles.random_graphs import mlp
from oracles.soundness import ball_points, margins
from robench.graph import GraphClassifier
from robench.threat import Threat
from robench_plugins.verify import _highs
from robench_plugins.verify._leaves import closed


def test_leaves_with_all_signs_are_exact():
    """The least leaf over all patterns is 0 at the exact radius, above it before, below it beyond."""
    checked = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        weights, biases = random_net(rng, (2, 3, 2, 3))
        graph, x = mlp(weights, biases), torch.tensor(rng.random((1, 2)))
        y = GraphClassifier(graph, dtype=torch.float64).logits(x).argmax(1)
        radius = exact_radius(weights, biases, x[0].numpy(), int(y), "linf", -np.inf, np.inf)
        if not 1e-3 < radius < 3:
            continue
        checked += 1
        for factor in (0.98, 1.0, 1.02):
            known, rows = started(graph, x, y, Threat("linf", radius * factor, SPACE), "ibp")
            first, second = known.program.activations
            least = math.inf
            for pattern in itertools.product((-1, 1), repeat=5):
                signs = {first: torch.tensor([pattern[:3]]), second: torch.tensor([pattern[3:]])}
                least = min(least, float(closed(known, signs, rows).bound.min()))
            assert (least > 0, abs(least) <= 10 * TOLERANCE) == (factor < 1, factor == 1), (seed, factor, least)
    assert checked >= 5


@pytest.mark.parametrize("part", range(2))
def test_leaves_hold_what_is_in_them_and_empty_ones_are_proven_empty(part):
    empty = 0
    for seed in range(1000 + 60 * part, 1060 + 60 * part):
        graph, x, y, threat = case(seed)
        rng = np.random.default_rng(seed)
        known, rows = started(graph, x, y, threat)
        program = known.program
        inside = values(program, x + threat.eps * torch.tensor(rng.uniform(-1, 1, x.shape)))
        signs = {}
        for position in program.activations:
            before = inside[program.steps[position].inputs[0]]
            sign = torch.where(before >= 0, 1, -1)
            if seed % 2:  # some signs are left open
                sign = sign * torch.tensor(rng.integers(0, 2, sign.shape))
            sign[1] = torch.where(torch.tensor(rng.random(sign[1].shape) < 0.1), -sign[1], sign[1])
            signs[position] = sign
        found = closed(known, signs, rows)
        value = (rows.coefficients.reshape(2, -1, 3) * inside[-1][:, None]).sum(-1)
        assert (found.bound.reshape(2, -1)[0] <= value[0] + 1e-12).all(), seed
        assert found.words[0] == "optimal"
        if seed % 2 == 0:  # the network is affine there: the minimum is a value
            points = found.points[rows.owners.index == 0]
            taken = (rows.coefficients[rows.owners.index == 0] * values(program, points)[-1]).sum(-1)
            assert torch.allclose(taken, found.bound.reshape(2, -1)[0], atol=1e-6), seed
        assert (found.words[1] == "infeasible") == bool((found.bound.reshape(2, -1)[1] == math.inf).all()), seed
        empty += found.words[1] == "infeasible"
    assert empty >= 10


def wrong(answer):
    """Every way in which a solver's answer may be wrong."""
    rng = np.random.default_rng(0)
    count = 0 if answer.duals is None else len(answer.duals)
    width = 0 if answer.point is None else len(answer.point)
    yield _highs.Answer("infeasible")
    yield _highs.Answer("optimal", 1e9, 1e9, answer.point, np.full(count, np.nan))
    yield _highs.Answer("optimal", 1.0, 1.0, answer.point, np.full(count, np.inf))
    yield _highs.Answer("optimal", 1.0, 1.0, np.full(width, np.nan), rng.normal(size=count) * 10)
    yield _highs.Answer("optimal", 1.0, 1.0, rng.normal(size=width) * 1e9, -answer.duals * 1e8 if count else None)
    yield _highs.Answer("infeasible", 1.0, 1.0, answer.point, np.ones(count) * 1e300)
    yield _highs.Answer("unheard of", math.nan, math.nan, None, np.zeros(3))


@pytest.mark.parametrize("which", range(7))
@pytest.mark.filterwarnings("error")
def test_no_wrong_answer_proves_anything_false(which, monkeypatch):
    right = _highs.Solver.solve

    def lie(self, cost=None, **limits):
        return list(wrong(right(self, cost, **limits)))[which]

    monkeypatch.setattr(_highs.Solver, "solve", lie)
    generator = torch.Generator().manual_seed(0)
    for seed in range(40):
        graph, x, y, threat = case(seed)
        known, rows = started(graph, x, y, threat)
        bound = closed(known, {}, rows).bound.reshape(2, -1).amin(1)
        for sample in range(2):
            points = ball_points(graph, x[sample], int(y[sample]), threat.norm, threat.eps, SPACE, generator)
            assert bound[sample] <= margins(graph, points, int(y[sample])).min() + 1e-12, seed

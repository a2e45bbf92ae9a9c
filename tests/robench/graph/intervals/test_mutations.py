"""The soundness checks see the mistakes that interval code makes: each, put in on purpose, excludes a true value."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from oracles.random_graphs import random_graph
from oracles.soundness import excluded_at_point, excluded_in_ball
from robench.graph.intervals import _affine, _elementwise, _margins, _propagate, _sums
from robench.graph.intervals._affine import enclose
from robench.graph.intervals._sets import Box, input_set
from robench.graph.intervals._sums import Rows
from robench.threat import NORMS, Domain

UNARY = _propagate._UNARY


def excluded(steps: list[str], seeds: int = 16) -> str | None:
    """Return the first violation on random graphs of `steps`, at points and in balls of every norm."""
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        graph = random_graph(steps, rng)
        x, y = torch.tensor(rng.random(graph.input_shape), dtype=torch.float32), seed % 3
        generator = torch.Generator().manual_seed(seed)
        found = excluded_at_point(graph, x, y)
        for norm, eps in zip(NORMS, (0.05, 0.2, 0.3), strict=True):
            found = found or excluded_in_ball(graph, x, y, norm, eps, Domain(), generator)
        if found:
            return found
    return None


def _rows(change):
    made = Rows.of.__func__

    def of(cls, weight, bias, extra=0):
        return change(made(cls, weight, bias, extra))

    return classmethod(of)


def _swapped(value, spread, rounding):
    box = enclose(value, spread, rounding)
    return Box(box.upper, box.lower)


def _half_ball(x, norm, eps, domain):
    return input_set(x, norm, eps / 2, domain)


def _primal_norm(layer, scale, norm):
    return _sums.rows_radius(_sums._linear_rows(layer), scale, {"l1": "linf", "l2": "l1"}[norm])[None] / 8


MUTATIONS = {
    "sign of |W|": (
        ["linear", "relu"],
        lambda m: m.setattr(Rows, "of", _rows(lambda r: replace(r, magnitude=r.weight))),
    ),
    "no |W| in convolutions": (
        ["conv2d", "relu"],
        lambda m: m.setitem(UNARY, "conv2d", lambda layer, box: box.map(layer.evaluate)),
    ),
    "missing bias": (["linear", "relu"], lambda m: m.setattr(Rows, "of", _rows(lambda r: replace(r, bias=None)))),
    "missing error term": (
        ["linear", "relu"],
        lambda m: [m.setattr(_affine, "gamma", lambda n: 0.0), m.setattr(_affine, "UNIT_ROUNDOFF", 0.0)],
    ),
    "lower and upper swapped": (["linear", "relu"], lambda m: m.setattr(_sums, "enclose", _swapped)),
    "margin rows with the wrong sign": (
        [],
        lambda m: m.setattr(
            _margins, "_rows", lambda last, y: Rows.of(last.constants["weight"] - last.constants["weight"][y], None)
        ),
    ),
    "lower − lower between nodes": (
        ["linear", "linear", "sub nodes"],
        lambda m: m.setitem(_elementwise.NARY, "sub", lambda _, a, b: Box(a.lower - b.lower, a.upper - b.upper)),
    ),
    "c − x taken as x − c": (["sub"], lambda m: m.setitem(UNARY, "sub", UNARY["add"])),
    "constants taken as positive": (
        ["linear", "mul"],
        lambda m: m.setitem(UNARY, "mul", lambda layer, box: box.map(layer.evaluate)),
    ),
    "negation without a swap": (
        ["linear", "neg"],
        lambda m: m.setitem(UNARY, "neg", lambda _, box: box.map(torch.neg)),
    ),
    "negative slopes taken as monotone": (
        ["linear", "leaky_relu"],
        lambda m: m.setitem(UNARY, "leaky_relu", lambda layer, box: box.map(layer.evaluate)),
    ),
    "batch normalisation without its mean": (
        ["conv2d", "batch_norm"],
        lambda m: m.setitem(
            UNARY, "batch_norm", lambda layer, box: box.map(lambda v: v * _elementwise._scale_shift(layer).scale)
        ),
    ),
    "half of the ball": (["linear", "relu"], lambda m: m.setattr(_margins, "input_set", _half_ball)),
    "no reach in the first layer": (
        ["linear", "relu"],
        lambda m: m.setattr(_propagate, "widen", lambda box, radius: box),
    ),
    "the wrong dual norm": (["linear", "relu"], lambda m: m.setitem(_sums.RADII, "linear", _primal_norm)),
    "a scale that normalisation does not change": (
        ["div", "linear", "relu"],
        lambda m: m.setitem(_elementwise.SCALES, "div", lambda layer, scale: scale / 4),
    ),
    "convolutions reach one pixel": (
        ["conv2d", "relu"],
        lambda m: m.setitem(
            _sums.RADII,
            "conv2d",
            lambda layer, scale, norm: layer.constants["weight"].abs().amax((1, 2, 3))[None, :, None, None] / 4,
        ),
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_is_seen(name, monkeypatch):
    steps, mutate = MUTATIONS[name]
    assert excluded(steps) is None
    mutate(monkeypatch)
    assert excluded(steps) is not None

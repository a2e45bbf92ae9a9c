"""Rows kept as windows give what whole rows give: every setting, residual connections, slopes, norms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.linear_bounds import random_slopes
from oracles.random_graphs import Draft
from robench.threat import NORMS, Domain, Threat
from robench_plugins.verify._engine import patches
from robench_plugins.verify._engine.backward import lower_bounds, unit_rows
from robench_plugins.verify._engine.bounds import bounded
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.patches import Patches, added
from robench_plugins.verify._engine.region import region_of
from robench_plugins.verify._engine.slopes import Schedule, optimise

SEEDS = st.integers(0, 2**32 - 1)


def image_graph(seed: int):
    """Convolutions of all settings on 9 x 8 images, with everything that a window can pass and some that it cannot."""
    rng = np.random.default_rng(seed)
    draft = Draft((2, 9, 8), rng)
    for _ in range(int(rng.integers(2, 4))):
        channels, groups = draft.shape[0], int(rng.choice([1, 2]))
        kernel = rng.integers(1, 4, 2).tolist()
        weight = draft.values(4, channels // groups, *kernel, scale=0.5)
        dilation = tuple(int(v) for v in (rng.integers(1, 3, 2) if min(draft.shape[1:]) > 5 else (1, 1)))
        stride = tuple(int(v) for v in (rng.integers(1, 3, 2) if min(draft.shape[1:]) > 5 else (1, 1)))
        constants = {"weight": weight} | ({"bias": draft.values(4)} if rng.random() < 0.7 else {})
        padding = tuple(int(v) for v in rng.integers(1, 3, 4))
        draft.add("conv2d", constants=constants, stride=stride, padding=padding, dilation=dilation, groups=groups)
        more = str(rng.choice(["plain", "residual", "norm", "concat", "leaky", "smooth", "scale", "pool"]))
        before = draft.end
        if more == "residual":
            draft.add("relu")
            weight = draft.values(4, 4, 3, 3, scale=0.3)
            same = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
            draft.add("conv2d", constants={"weight": weight}, **same).add("add", before, draft.end)
        elif more == "norm":
            constants = {name: draft.values(4) for name in ("mean", "weight", "bias")}
            draft.add("batch_norm", constants=constants | {"var": torch.full((4,), 0.875)}, eps=0.125)
        elif more == "concat":
            draft.add("tanh").add("concat", draft.end, before, axis=0)
        elif more == "scale":
            draft.add("mul", constants={"other": draft.values(*draft.shape)})
        elif more == "pool" and min(draft.shape[1:]) > 3:
            draft.add("avg_pool2d", kernel=(2, 2), stride=(1, 1), padding=(0, 0, 0, 0), count_include_pad=1)
        draft.add(
            {"leaky": "leaky_relu", "smooth": "sigmoid"}.get(more, "relu"),
            **({"slope": 0.125} if more == "leaky" else {}),
        )
    return draft.linear(3).graph()


def both(known, rows, monkeypatch, **settings_):
    """Windows as long as they can, and whole rows."""
    made = []
    for name, value in (("WIDE", math.inf), ("_LEAST", math.inf)):
        with monkeypatch.context() as m:
            m.setattr(patches, name, value)
            made.append(lower_bounds(known.program, known.region, known.lines, rows, errors=known.errors, **settings_))
    return made


def compared(seed: int) -> int:
    """Compare rows of every activation's inputs; return how many calls ended in windows."""
    rng = np.random.default_rng(seed)
    graph = image_graph(seed)
    x = torch.tensor(rng.random((2, *graph.input_shape)))
    threat = Threat(NORMS[seed % 3], float(rng.choice([0.01, 0.3])), Domain())
    known = bounded(graph, region_of(x, threat), "crown")
    used = 0
    with pytest.MonkeyPatch.context() as monkeypatch:
        for position in known.program.activations:
            at = known.program.steps[position].inputs[0]
            count = 12
            unit = torch.tensor(rng.integers(0, math.prod(known.program.steps[at].shape), count))
            sign = torch.tensor(rng.choice([-1.0, 1.0], count))
            for owners in (
                Owners(torch.tensor(np.sort(rng.integers(0, 2, count)))),
                Owners.uniform(2, count // 2, x.device),
            ):
                rows = unit_rows(at, owners, unit, sign)
                for slopes in (None, random_slopes(known, rows, torch.Generator().manual_seed(seed))):
                    one, other = both(known, rows, monkeypatch, slopes=slopes)
                    torch.testing.assert_close(one.bound, other.bound, rtol=1e-10, atol=1e-10)
                    torch.testing.assert_close(one.rows, other.rows, rtol=1e-10, atol=1e-10)
                    used += isinstance(one._rows, Patches)
            single = known.select(slice(0, 1))
            one, other = both(single, unit_rows(at, Owners.uniform(1, count, x.device), unit, sign), monkeypatch)
            torch.testing.assert_close(one.bound, other.bound, rtol=1e-10, atol=1e-10)
    return used


@settings(max_examples=60)
@given(SEEDS)
def test_windows_and_whole_rows_agree(seed):
    compared(seed)


def test_windows_reach_the_input():
    assert sum(compared(seed) > 0 for seed in range(8)) > 3


def test_a_sum_of_windows_is_the_sum_of_rows():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, dtype=torch.float64, generator=generator)  # noqa: E731
    top, left = torch.tensor([0, 3, -1]), torch.tensor([2, -1, 4])
    for offset, size in (((1, -2), (2, 4)), ((0, 0), (3, 3)), ((-4, 5), (1, 2))):
        a = Patches(draw(3, 2, 3, 3), top, left, (2, 7, 6)).inside()
        b = Patches(draw(3, 2, *size), top + offset[0], left + offset[1], (2, 7, 6)).inside()
        torch.testing.assert_close(added(a, b).dense(), a.dense() + b.dense())
    skewed = Patches(draw(3, 2, 3, 3), top + torch.tensor([0, 1, 0]), left, (2, 7, 6))
    assert added(a, skewed) is None


def test_windows_gather_what_lies_below_them():
    maps = torch.arange(2 * 1 * 5 * 6, dtype=torch.float64).reshape(2, 1, 5, 6) + 1
    spot = Patches(torch.ones(3, 1, 2, 3).double(), torch.tensor([-1, 3, 4]), torch.tensor([4, -2, 0]), (1, 5, 6))
    (found,) = spot.gathered((maps,), Owners(torch.tensor([0, 1, 1])))
    expected = torch.tensor([[[0, 0, 0], [5, 6, 0]], [[0, 0, 49], [0, 0, 55]], [[55, 56, 57], [0, 0, 0]]]).double()
    assert torch.equal(found[:, 0], expected)


def test_slopes_are_optimised_in_windows_too():
    graph = image_graph(3)
    x = torch.rand(1, *graph.input_shape, generator=torch.Generator().manual_seed(0)).double()
    known = bounded(graph, region_of(x, Threat("linf", 0.3, Domain.unbounded())), "crown")
    position = known.program.activations[1]
    at = known.program.steps[position].inputs[0]
    count = math.prod(known.program.steps[at].shape)
    rows = unit_rows(at, Owners.uniform(1, count, x.device), torch.arange(count), torch.ones(count).double())
    own = lower_bounds(known.program, known.region, known.lines, rows).bound
    found = optimise(*known.search(torch.float64), rows, schedule=Schedule(10))
    assert (found.bound >= own - 1e-12).all() and (found.bound > own + 1e-6).any()
    proven = lower_bounds(
        known.program, known.region, known.lines, rows, slopes=found.slopes, errors=known.errors
    ).bound
    torch.testing.assert_close(proven, found.bound, rtol=1e-8, atol=1e-8)

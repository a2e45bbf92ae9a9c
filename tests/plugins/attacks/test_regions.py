"""Regions: random starts, projections and steps never leave ball ∩ domain, not by a rounding in linf."""

from __future__ import annotations

import math

import pytest
import torch

from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.attacks.regions import Region
from robench_plugins.attacks.steps import move, step_sizes

NORMS = ("linf", "l2", "l1")
ORD = {"linf": math.inf, "l2": 2, "l1": 1}
DOMAINS = [Domain(), Domain.unbounded(), Domain(-1.0, math.inf), Domain(-math.inf, 1.0)]


def inputs(dtype, shape=(3, 5, 2), count=16):
    x = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return torch.where(x < 0.2, torch.zeros_like(x), torch.where(x > 0.8, torch.ones_like(x), x))


def assert_inside(points, x, norm, eps, domain):
    assert points.dtype == x.dtype
    assert points.shape == x.shape
    assert ((points >= domain.lower) & (points <= domain.upper)).all()
    far = (points.double() - x.double()).flatten(1).norm(p=ORD[norm], dim=1)
    # linf to the bit; sums round by a few units in the last place of coordinates of order 1.
    slack = 0 if norm == "linf" else 4 * torch.finfo(x.dtype).eps * x[0].numel()
    assert (far <= eps + slack).all()
    return far


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("domain", DOMAINS, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_starts_steps_and_maximisers_stay_inside(norm, domain, dtype):
    x, generator = inputs(dtype), torch.Generator().manual_seed(1)
    for eps in (8 / 255, 0.3, 5.0):
        region = Region.around(x, Threat(norm, eps, domain))
        stream = Stream.for_samples(0, "test", range(len(x)))
        point = region.start(stream)
        assert_inside(point, x, norm, eps, domain)
        gradient = torch.randn(x.shape, generator=generator, dtype=dtype)
        assert_inside(region.maximise(gradient), x, norm, eps, domain)
        for size in (0.05, 1.0, 40.0):
            point = move(region, point, torch.randn(x.shape, generator=generator, dtype=dtype), size)
            assert_inside(point, x, norm, eps, domain)


def test_linf_reaches_the_last_float_inside_the_ball():
    x = inputs(torch.float32)
    region = Region.around(x, Threat("linf", 8 / 255, Domain.unbounded()))
    top = region.project(x + 1)
    assert (top.double() - x.double() <= 8 / 255).all()
    assert (torch.nextafter(top, top + 1).double() - x.double() > 8 / 255).all()


@pytest.mark.parametrize("norm", NORMS)
def test_starts_differ_per_stream_and_use_the_budget(norm):
    x = torch.full((64, 30), 0.5, dtype=torch.float64)
    region = Region.around(x, Threat(norm, 0.4, Domain()))
    stream = Stream.for_samples(0, "test", range(64))
    first, second = region.start(stream.child("restart", 0)), region.start(stream.child("restart", 1))
    assert ((first - second).abs().flatten(1).amax(1) > 0.01).all()
    far = assert_inside(first, x, norm, 0.4, Domain())
    assert far.mean() > 0.8 * 0.4
    rows = torch.tensor([5, 3])
    alone = region.select(rows).start(Stream.for_samples(0, "test", [5, 3]).child("restart", 0))
    assert torch.equal(alone, first[rows])


def test_step_sizes():
    assert step_sizes("fixed", 40) == [2.5 / 40] * 40
    assert step_sizes("fixed", 3, 0.25) == [0.25] * 3
    falling = step_sizes("cosine", 50)
    assert falling[0] == 1
    assert falling[25] == pytest.approx(0.5)
    assert 0 < falling[-1] < 0.002
    assert falling == sorted(falling, reverse=True)
    assert step_sizes("cosine", 50, 0.5) == pytest.approx([size / 2 for size in falling])


def test_steps_are_the_steepest_ones():
    x, g = torch.full((1, 4), 0.5, dtype=torch.float64), torch.tensor([[2.0, -1.0, 0.0, 1.0]], dtype=torch.float64)
    for norm, way in (("linf", g.sign()), ("l2", g / 6**0.5), ("l1", torch.tensor([[1.0, 0, 0, 0]]).double())):
        region = Region.around(x, Threat(norm, 0.2, Domain()))
        torch.testing.assert_close(move(region, x, g, 0.5), x + 0.1 * way)
    # In l1 a coordinate gets no more than the domain leaves it.
    region = Region.around(x, Threat("l1", 0.8, Domain()))
    torch.testing.assert_close(region.maximise(g), torch.tensor([[1.0, 0.2, 0.5, 0.5]], dtype=torch.float64))


def test_a_threat_without_eps_is_refused():
    with pytest.raises(ValueError, match="ε"):
        Region.around(torch.zeros(1, 2), Threat("l2", None, Domain()))

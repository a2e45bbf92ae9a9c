"""The least value of a linear form over a ball cut by a box: met by a point of the set, so it is the minimum."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.region import Region

NORMS = {"l1": 1, "l2": 2}


def cut_balls(seed, n, samples=2):
    """Return balls around points of [0, 1]ⁿ, some on a wall, some of radius 0, and forms with zeros among them."""
    draw = torch.Generator().manual_seed(seed)
    centre = torch.rand(samples, n, generator=draw, dtype=torch.float64)
    centre = torch.where(torch.rand(samples, n, generator=draw) < 0.2, centre.round(), centre)
    eps = torch.rand(samples, generator=draw, dtype=torch.float64) * torch.tensor([2.0, 0.1]).double()[seed % 2]
    if seed % 7 == 0:
        eps[0] = 0
    lower, upper = (centre - eps[:, None]).clamp_min(0), (centre + eps[:, None]).clamp_max(1)
    rows = torch.randn(samples * 3, n, generator=draw, dtype=torch.float64)
    rows[torch.rand(rows.shape, generator=draw) < 0.2] = 0
    return centre, eps, lower, upper, rows


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 2**20), n=st.integers(1, 40))
def test_the_least_value_is_met_within_ball_and_box(norm, seed, n):
    centre, eps, lower, upper, rows = cut_balls(seed, n)
    region, owners = Region(lower, upper, centre, eps, norm), Owners.uniform(2, 3, centre.device)
    least, point = region.least(rows, owners), region.minimiser(rows, owners)
    assert bool(((point >= owners.of(lower)) & (point <= owners.of(upper))).all())
    moved = torch.linalg.vector_norm(point - owners.of(centre), NORMS[norm], dim=1)
    assert bool((moved <= owners.of(eps) * (1 + 1e-9)).all())
    gap, size = (rows * point).sum(1) - least, rows.abs().sum(1)
    assert bool((gap >= -1e-13 * size).all())
    assert bool((gap <= 1e-13 * size + 1e-9 * owners.of(eps) * size).all())
    bounded = least - region.error(rows, owners)
    assert bool((bounded <= (rows * point).sum(1)).all())
    assert bool((least - bounded <= 1e-11 * (1 + rows.abs().sum(1))).all())


@pytest.mark.parametrize("norm", NORMS)
def test_a_ball_with_room_has_the_dual_norm(norm):
    centre = torch.full((1, 5), 0.5, dtype=torch.float64)
    region = Region(centre - 0.4, centre + 0.4, centre, torch.tensor([0.1]).double(), norm)
    row = torch.tensor([[3.0, -4.0, 0.0, 0.0, 0.0]]).double()
    dual = {"l1": 4.0, "l2": 5.0}[norm]
    assert region.least(row, Owners.uniform(1, 1, row.device)).item() == pytest.approx(-0.5 - 0.1 * dual)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e150])
def test_sizes_near_the_limits_of_the_numbers(norm, scale):
    centre, eps, lower, upper, rows = cut_balls(3, 6)
    owners = Owners.uniform(2, 3, centre.device)
    plain = Region(lower, upper, centre, eps, norm).least(rows, owners)
    forms = Region(lower, upper, centre, eps, norm).least(rows * scale, owners)
    assert torch.allclose(forms / scale, plain, rtol=1e-9)
    sides = Region(lower * scale, upper * scale, centre * scale, eps * scale, norm).least(rows, owners)
    assert torch.allclose(sides / scale, plain, rtol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_its_gradient_is_the_point(norm):
    """The envelope theorem: what climbs the bound must see where it is met."""
    centre, eps, lower, upper, rows = cut_balls(5, 8)
    region, owners = Region(lower, upper, centre, eps, norm), Owners.uniform(2, 3, centre.device)
    rows = torch.where(rows == 0, 0.1, rows).requires_grad_()
    region.least(rows, owners).sum().backward()
    point = region.minimiser(rows.detach(), owners)
    assert torch.allclose(rows.grad, point, atol=1e-7)

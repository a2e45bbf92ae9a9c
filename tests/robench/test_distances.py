"""Distances never below the exact ones, and projections that really are inside."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robench.distances import distance, distances, linf_box, project
from robench.threat import NORMS, Domain, Threat

numbers = st.floats(-4, 4, width=32)
pairs = st.integers(1, 6).flatmap(lambda size: st.tuples(*[st.lists(numbers, min_size=size, max_size=size)] * 2))


def exact_powers(a, b):
    """Return the exact linf and l1 distances and the exact *square* of the l2 distance."""
    steps = [abs(Fraction(p) - Fraction(q)) for p, q in zip(a, b, strict=True)]
    return max(steps), sum(steps), sum(step * step for step in steps)


@given(pairs, st.sampled_from([torch.float32, torch.float64]))
def test_distance_is_rounded_up_and_tight(pair, dtype):
    a, b = (torch.tensor([one], dtype=dtype) for one in pair)
    linf, l1, square = exact_powers(a[0].tolist(), b[0].tolist())
    found = {norm: Fraction(value.item()) for norm, value in distances(a, b).items()}
    assert found["linf"] >= linf
    assert found["l1"] >= l1
    assert found["l2"] ** 2 >= square
    tight = 1 + Fraction(1, 10**13)
    assert found["linf"] <= linf * tight
    assert found["l1"] <= l1 * tight
    assert found["l2"] ** 2 <= square * tight**2


def test_exact_steps_stay_exact():
    x = torch.tensor([[0.0, 0.5]])
    assert distance(x + 0.25, x, "linf").item() == 0.25
    assert distance(x, x, "l2").item() == 0.0


def test_extreme_magnitudes():
    x = torch.zeros(1, 3, dtype=torch.float64)
    for size in (1e-200, 1e200):
        found = distance(x + size, x, "l2").item()
        assert 3**0.5 * size <= found <= 3**0.5 * size * (1 + 1e-13)
    assert distance(torch.full((1, 3), torch.nan), torch.zeros(1, 3), "linf").isnan().all()


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from(NORMS),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([1e-9, 8 / 255, 0.1, 0.3, 2.0]),
    st.sampled_from([Domain(), Domain(-1.5, 0.1), Domain.unbounded()]),
)
def test_projected_points_are_inside_both(seed, norm, dtype, eps, domain):
    generator = torch.Generator().manual_seed(seed)
    lower, upper = max(domain.lower, -3), min(domain.upper, 3)
    x = lower + (upper - lower) * torch.rand(8, 2, 5, generator=generator, dtype=dtype)
    points = x + torch.randn(8, 2, 5, generator=generator, dtype=dtype)
    inside = project(points, x, Threat(norm, eps, domain))
    assert (distance(inside, x, norm) <= eps).all()
    low, high = domain.box(x)
    assert ((inside >= low) & (inside <= high)).all()
    assert torch.equal(project(inside, x, Threat(norm, eps, domain)), inside)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_uses_the_budget(norm):
    x = torch.full((4, 6), 0.5)
    far = x + torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    used = distance(project(far, x, Threat(norm, 0.1, Domain())), x, norm)
    assert (used > 0.1 * (1 - 1e-5)).all()


def test_float32_steps_of_eps_do_not_overshoot():
    # x + 8/255 in float32 lies above the real sum for many x: what passes for ε in float32 is more.
    x = torch.rand(4096, 1, generator=torch.Generator().manual_seed(1))
    eps = 8 / 255
    naive = x + torch.tensor(eps)
    assert (distance(naive, x, "linf") > eps).any()
    assert (distance(project(naive, x, Threat("linf", eps, Domain.unbounded())), x, "linf") <= eps).all()


def test_without_a_budget_only_the_domain_holds():
    x = torch.full((2, 3), 0.5)
    assert torch.equal(project(x + 7, x, Threat("l2", None, Domain())), torch.ones(2, 3))


@settings(deadline=None)
@given(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=6),
    st.floats(1e-9, 3),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([Domain(-4.0, 4.0), Domain(-4.0, 5.0), Domain.unbounded()]),
)
def test_linf_box_holds_the_last_numbers_within_the_ball(values, eps, dtype, domain):
    x = torch.tensor([values], dtype=dtype)
    lower, upper = linf_box(x, Threat("linf", eps, domain))
    for bound, outward in ((lower, -torch.inf), (upper, torch.inf)):
        beyond = torch.nextafter(bound, torch.full_like(bound, outward))
        for here, side, next_one in zip(x[0].tolist(), bound[0].tolist(), beyond[0].tolist(), strict=True):
            assert domain.lower <= side <= domain.upper
            assert abs(Fraction(side) - Fraction(here)) <= Fraction(eps)
            assert side in (domain.lower, domain.upper) or abs(Fraction(next_one) - Fraction(here)) > Fraction(eps)


def test_linf_box_needs_a_radius():
    with pytest.raises(ValueError, match="radius"):
        linf_box(torch.zeros(1, 2), Threat("linf", None, Domain()))

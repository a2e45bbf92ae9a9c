"""FAB's projection onto a hyperplane inside a box, against the exact radius of a linear classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles.classifiers import linear, mlp
from oracles.linear_box import exact_radius
from robench.classifier import margins
from robench_plugins.attacks._fab_planes import aimed, nearest, onto

NORMS = ("linf", "l2", "l1")
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", NORMS)
def test_the_projection_is_the_nearest_point_inside_the_box(norm, dtype):
    """Rooms that are 0, small and infinite, zeros and ties among the slopes, planes out of reach."""
    tight, out = (1e-9 if dtype == torch.float64 else 1e-4), 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        size = int(rng.choice([1, 3, 8, 90]))
        a = np.abs(rng.normal(size=size)) * rng.choice([0.0, 1.0, 1.0, 1e-3], size=size)
        a = a / max(a.max(), 1e-9)
        room = rng.choice([0.0, 0.1, 1.0, np.inf], size=size, p=[0.3, 0.3, 0.3, 0.1])
        need = float(rng.choice([0.0, 1e-6, 0.1, 1.0, 10.0]))
        z, length = onto(norm, *(torch.tensor(part, dtype=dtype)[None] for part in (a, need, room)))
        z = np.where(a > 0, z[0].double().numpy(), 0)
        assert (z >= 0).all()
        assert (z <= room * (1 + tight)).all()
        radius, _ = exact_radius(np.stack([-a, 0 * a]), [need, 0.0], np.zeros(size), 0, norm, np.zeros(size), room)
        if np.isinf(radius):
            out += 1
            np.testing.assert_allclose(z, np.where(a > 0, room, 0), rtol=tight)
            continue
        assert a @ z == pytest.approx(need, rel=tight, abs=1e-30)
        assert np.linalg.norm(z, ORDER[norm]) == pytest.approx(radius, rel=10 * tight, abs=1e-12)
        assert length.item() == pytest.approx(radius, rel=10 * tight, abs=1e-12)
    assert 5 < out < 60


def test_many_coordinates_in_l1():
    """More are needed than the few steepest that are looked at first."""
    a = torch.linspace(1, 0.5, 700, dtype=torch.float64)[None]
    room = torch.full_like(a, 0.01)
    z, length = onto("l1", a, torch.tensor([3.0], dtype=torch.float64), room)
    assert (a * z).sum().item() == pytest.approx(3)
    used = int((z > 0).sum())
    assert (z[0, : used - 1] == 0.01).all()
    assert length.item() == pytest.approx(z.sum().item())


def test_planes_are_the_margins_of_the_pair():
    classifier = mlp((6, 9, 4), seed=1, dtype=torch.float64)
    x = torch.rand(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, target = classifier.logits(x).argmax(1), torch.tensor([0, 1, 2, 3, 0])
    target = torch.where(target == y, (y + 1) % 4, target)
    plane = aimed(classifier, x, y, target)
    for row in range(5):
        at = x[row : row + 1].clone().requires_grad_()
        logits = classifier.logits(at)[0]
        apart = logits[y[row]] - logits[target[row]]
        (gradient,) = torch.autograd.grad(apart, at)
        peak = gradient.abs().max()
        torch.testing.assert_close(plane.normal[row], -gradient[0] / peak)
        torch.testing.assert_close(plane.value[row], (apart / peak).detach())
    torch.testing.assert_close(plane.margin, margins(classifier.logits(x).detach(), y))


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_plane_is_so_inside_the_box(norm):
    """Class 1 is nearer in free space, but the coordinate that leads there has no room."""
    classifier = linear([[0.0, 0.0], [4.0, 0.0], [0.0, 1.0]], [0.5, -3.6, 0.0])
    x = torch.tensor([[1.0, 0.2]], dtype=torch.float64)
    y, lower, upper = torch.tensor([0]), torch.zeros_like(x), torch.ones_like(x)
    assert nearest(classifier, norm, x, y, lower, upper).normal.tolist() == [[0.0, 1.0]]
    assert nearest(classifier, norm, x, y, lower, 2 * upper).normal.tolist() == [[1.0, 0.0]]

"""Auto-PGD's losses, starts and steps, one by one."""

from __future__ import annotations

import pytest
import torch

from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.attacks._apgd_walk import Walk
from robench_plugins.attacks.apgd_losses import Look, height, temperature
from robench_plugins.attacks.apgd_steps import momentum_step, random_start, sparse_step, widened
from robench_plugins.attacks.losses import cotangent
from robench_plugins.attacks.regions import Region


def printed(loss, z, y, target):
    """The losses as the papers print them, one sample, float64."""
    ranked = z.sort(descending=True).values
    if loss == "ce":
        return -z.log_softmax(0)[y] if target is None else z.log_softmax(0)[target]
    rest = torch.cat([z[:y], z[y + 1 :]])
    margin = (rest.max() if target is None else z[target]) - z[y]
    if loss == "margin" or len(z) < (3 if target is None else 4):
        return margin
    return margin / (ranked[0] - (ranked[2] if target is None else (ranked[2] + ranked[3]) / 2))


def problem(classes, targeted):
    generator = torch.Generator().manual_seed(classes)
    z = torch.randn(50, classes, generator=generator, dtype=torch.float64) * 3
    y = torch.randint(classes, (50,), generator=generator)
    return z, y, (y + 1 + torch.randint(classes - 1, (50,), generator=generator)) % classes if targeted else None


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", ["ce", "dlr", "margin"])
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_heights_order_points_as_the_printed_losses_do(classes, loss, targeted):
    z, y, target = problem(classes, targeted)
    y = torch.zeros_like(y)
    target = None if target is None else torch.ones_like(y)
    ours, _ = height(loss, z, y, target)
    theirs = torch.stack([printed(loss, z[i], 0, None if target is None else 1) for i in range(50)])
    if loss == "ce":
        # The log-odds of p = exp(±loss).
        share = (-theirs).exp() if target is None else theirs.exp()
        torch.testing.assert_close(ours, (-1 if target is None else 1) * (share / (1 - share)).log())
    else:
        torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours.argsort(), theirs.argsort())


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", ["ce", "dlr", "margin"])
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_the_way_is_the_gradient_of_the_height_and_of_the_printed_loss(classes, loss, targeted):
    z, y, target = problem(classes, targeted)
    placed = (z > z.gather(1, y[:, None])).sum(1)
    checked = 0
    for i in range(50):
        one = None if target is None else target[i : i + 1]
        way = cotangent(loss, z[i : i + 1], y[i : i + 1], one)[0]
        if loss == "dlr" and placed[i] > 1:
            # Once the label is third the margin's direction takes over (losses.py).
            assert torch.equal(way, cotangent("margin", z[i : i + 1], y[i : i + 1], one)[0])
            continue
        row = z[i].clone().requires_grad_()
        ours = height(loss, row[None], y[i : i + 1], one)[0][0]
        theirs = printed(loss, row, y[i], None if one is None else one[0])
        for value in (ours, theirs):
            (gradient,) = torch.autograd.grad(value, row)
            assert (gradient @ way / (gradient.norm() * way.norm())).item() == pytest.approx(1, abs=1e-12)
        checked += 1
    assert checked >= 8


def test_heights_tell_confident_points_apart_where_cross_entropy_cannot():
    z, y = torch.tensor([[90.0, 0.0, -5.0], [120.0, 0.0, -5.0]]), torch.tensor([0, 0])
    assert (z.log_softmax(1)[:, 0] == 0).all()
    first, second = height("ce", z, y)[0].tolist()
    assert first > second
    bad = torch.tensor([[1.0, torch.nan, 0.0], [torch.inf, 0.0, 0.0]])
    assert all((height(loss, bad, y)[0] == -torch.inf).all() for loss in ("ce", "dlr", "margin"))
    assert height("dlr", torch.ones(1, 4), y[:1])[0].tolist() == [0.0]


def test_only_cross_entropy_on_odd_logits_gets_a_temperature():
    z = torch.tensor([[6.0, 0.0, 1.0], [6e4, 0.0, 1.0], [6e-4, 0.0, 1e-4], [1.0, 1.0, 1.0], [torch.nan, 1.0, 2.0]])
    assert temperature("ce", z).tolist() == pytest.approx([1, 10 / 6e4, 10 / 6e-4, 1, 1])
    assert temperature("dlr", z).tolist() == [1] * 5


def region(norm, eps, x, domain=None):
    return Region.around(x, Threat(norm, eps, domain or Domain()))


@pytest.mark.parametrize(("norm", "order"), [("linf", torch.inf), ("l2", 2), ("l1", 1)])
def test_starts_lie_on_the_sphere_and_in_the_box(norm, order):
    x = torch.full((30, 2, 6), 0.5)
    stream = Stream.for_samples(0, "t", range(30))
    start = random_start(region(norm, 0.3, x), stream)
    assert (start - x).flatten(1).norm(p=order, dim=1).tolist() == pytest.approx([0.3] * 30, rel=1e-5)
    # In l1 most of a small ball's points sit on one axis.
    assert len(start.unique(dim=0)) >= (15 if norm == "l1" else 30)
    edge = random_start(region(norm, 0.3, torch.zeros(30, 2, 6)), Stream.for_samples(0, "t", range(30)))
    assert edge.min() >= 0
    free = random_start(region(norm, 3e3, 1e4 * x, Domain.unbounded()), Stream.for_samples(0, "t", range(30)))
    assert (free - 1e4 * x).flatten(1).norm(p=order, dim=1).tolist() == pytest.approx([3e3] * 30, rel=1e-3)
    wide = random_start(region("l1", 0.3, x), Stream.for_samples(0, "t", range(30)), 3.0)
    assert (wide - x).flatten(1).abs().sum(1).tolist() == pytest.approx([0.9] * 30, rel=1e-5)


def test_momentum_steps_by_hand():
    x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    box = region("linf", 0.1, x)
    point, last, way = (
        x + torch.tensor([[0.02, 0.0]]),
        x + torch.tensor([[-0.02, 0.04]]),
        torch.tensor([[3.0, -7.0]]).double(),
    )
    size = torch.tensor([0.5], dtype=torch.float64)
    # z = (.57, .45); x⁺ = x + .75 (z − x) + .25 (x − x⁻) = (.52 + .0375 + .01, .5 − .0375 − .01).
    new = momentum_step(box, point, last, way, size, 0.75)
    torch.testing.assert_close(new, torch.tensor([[0.5675, 0.4525]], dtype=torch.float64))
    torch.testing.assert_close(
        momentum_step(box, point, last, way, size, 1.0), torch.tensor([[0.57, 0.45]], dtype=torch.float64)
    )
    # A long step is cut at the ball before it is averaged: z = (.6, .4).
    far = momentum_step(box, point, last, way, size * 4, 0.75)
    torch.testing.assert_close(far, torch.tensor([[0.59, 0.415]], dtype=torch.float64))
    ball = region("l2", 1.0, x, Domain.unbounded())
    for scale in (1.0, 1e-40):  # squares underflow
        new = momentum_step(ball, point, point, torch.tensor([[3.0, -4.0]]).double() * scale, size, 1.0)
        torch.testing.assert_close(new, point + torch.tensor([[0.3, -0.4]]))


def test_sparse_steps_by_hand():
    x = torch.full((3, 2, 2), 0.5, dtype=torch.float64)
    way = torch.tensor([[[4.0, -3.0], [2.0, 0.0]]], dtype=torch.float64).expand(3, 2, 2)
    ball = region("l1", 0.4, x)
    new = sparse_step(ball, x, way, torch.full((3,), 0.5).double(), torch.tensor([1, 2, 4]))
    expected = [[[0.2, 0], [0, 0]], [[0.1, -0.1], [0, 0]], [[0.2 / 3, -0.2 / 3], [0.2 / 3, 0]]]
    torch.testing.assert_close(new - x, torch.tensor(expected, dtype=torch.float64))
    # From a point on the sphere: shrunk by soft thresholding.
    edge = x + torch.tensor([[0.4, 0.0], [0.0, 0.0]])
    new = sparse_step(ball, edge, -way, torch.full((3,), 0.5).double(), torch.tensor([2, 2, 2]))
    torch.testing.assert_close(new[0] - x[0], torch.tensor([[0.3, 0.1], [0, 0]], dtype=torch.float64))
    assert torch.equal(sparse_step(ball, x, 0 * way, torch.ones(3).double(), torch.tensor([2, 2, 2])), x)
    assert widened(ball, 3.0).eps == pytest.approx(1.2)
    assert widened(ball, 1.0) is ball


def test_sparse_steps_pass_over_coordinates_at_the_side_of_the_box():
    """The steepest coordinate is at 1 already: published, a step of one coordinate goes nowhere for ever."""
    x = torch.tensor([[1.0, 0.5, 0.5]], dtype=torch.float64)
    ball = region("l1", 0.4, x)
    way = torch.tensor([[9.0, 1.0, 2.0]], dtype=torch.float64)
    new = sparse_step(ball, x, way, torch.tensor([0.5]).double(), torch.tensor([1]))
    torch.testing.assert_close(new, torch.tensor([[1.0, 0.5, 0.7]], dtype=torch.float64))
    assert sparse_step(ball, x, -way, torch.tensor([0.5]).double(), torch.tensor([1])).tolist() == [[0.8, 0.5, 0.5]]


def test_rounding_is_no_rise():
    """A point that stays where it is, seen in another batch, differs in the last bits of its loss."""
    x = torch.full((3, 2), 0.5)

    def seen(*losses):
        column = torch.tensor(losses)
        return Look(column, 64 * torch.finfo(x.dtype).eps * column.abs(), column, column, column, torch.ones(3, 2))

    walk = Walk.begin(region("linf", 0.1, x), x, seen(3.0, 3.0, 3.0), 2.0, informed=False)
    walk.note(seen(3.0 * (1 + 2e-7), 3.0 * (1 - 2e-7), 3.0001))
    assert walk.rule.rises.tolist() == [0, 0, 1]
    assert walk.top_loss.tolist() == pytest.approx([3.0, 3.0, 3.0001], rel=1e-7)
    walk.note(seen(3.5, 2.0, 4.0))
    assert walk.rule.rises.tolist() == [1, 0, 2]

"""Cotangents at the edges: few classes, odd scales, ties, values that are not finite. In general: test_apgd_steps."""

from __future__ import annotations

import pytest
import torch

from robench_plugins.attacks.losses import cotangent, likely_targets


@pytest.mark.parametrize(("classes", "targeted"), [(2, False), (2, True), (3, True)])
def test_dlr_with_too_few_classes_is_the_margin(classes, targeted):
    z, y = torch.randn(20, classes, generator=torch.Generator().manual_seed(0)), torch.arange(20) % classes
    target = (y + 1) % classes if targeted else None
    assert torch.equal(cotangent("dlr", z, y, target), cotangent("margin", z, y, target))


def test_dlr_of_three_classes_is_the_ratio():
    z, y = torch.tensor([[3.0, 2.0, -1.0]], dtype=torch.float64), torch.tensor([0])
    row = z[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad((row[1] - row[0]) / (row[0] - row[2]), row)
    torch.testing.assert_close(cotangent("dlr", z, y)[0] / (row[0] - row[2]).detach(), gradient)


@pytest.mark.parametrize("loss", ["ce", "dlr", "margin"])
def test_no_direction_is_lost_to_the_scale_of_the_logits(loss):
    z, y = torch.tensor([[9.0, 7.5, 1.0, -2.0]]), torch.tensor([0])
    for scale in (1e-6, 1.0, 1e4, 1e30):
        v = cotangent(loss, z * scale, y)
        assert v.isfinite().all()
        assert v.abs().amax() >= 0.1
        assert v[0, 0] < 0 < v[0, 1]
    # The textbook gradient softmax(z) − e_y is exactly 0 in float32 at this scale.
    assert ((z * 1e4).softmax(1) - torch.eye(4)[:1]).abs().sum() == 0


@pytest.mark.parametrize("loss", ["ce", "dlr", "margin"])
@pytest.mark.parametrize("targeted", [False, True])
def test_ties_and_values_that_are_not_finite(loss, targeted):
    z = torch.tensor([[1.0] * 5, [2.0, 1.0, torch.nan, 0.0, 0.0], [torch.inf, 1.0, 0.0, 0.0, 0.0], [5.0, 4, 3, 2, 1]])
    y = torch.zeros(4, dtype=torch.int64)
    v = cotangent(loss, z, y, y + 1 if targeted else None)
    assert v.isfinite().all()
    assert (v[1:3] == 0).all()
    assert v[0, 0] < 0
    assert torch.equal(v[3:], cotangent(loss, z[3:], y[3:], y[3:] + 1 if targeted else None))


def test_likely_targets_are_the_other_classes_by_rank():
    z, y = torch.tensor([[1.0, 5.0, 3.0, 4.0], [9.0, 1.0, 1.0, 2.0]]), torch.tensor([1, 1])
    assert likely_targets(z, y, 3).tolist() == [[3, 2, 0], [0, 3, 2]]
    assert likely_targets(z, y, 1).tolist() == [[3], [0]]
    assert likely_targets(z[:, :2], y, 1).tolist() == [[0], [0]]

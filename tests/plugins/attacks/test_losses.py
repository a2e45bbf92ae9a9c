"""Cotangents against the gradients of the losses as printed in their papers."""

from __future__ import annotations

import pytest
import torch

from robench_plugins.attacks.losses import cotangent, likely_targets


def printed(loss, z, y, target=None):
    """The loss of one sample, in float64, as the papers write it."""
    ranked = z.sort(descending=True).values
    rest = torch.cat([z[:y], z[y + 1 :]])
    if loss == "ce":
        return -z.log_softmax(0)[y] if target is None else z.log_softmax(0)[target]
    margin = (rest.max() if target is None else z[target]) - z[y]
    if loss == "margin":
        return margin
    if target is None:
        return margin / (ranked[0] - ranked[2])
    return margin / (ranked[0] - (ranked[2] + ranked[3]) / 2)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
@pytest.mark.parametrize("classes", [4, 5, 10])
def test_cotangents_point_along_the_printed_losses_gradients(loss, classes, targeted):
    generator = torch.Generator().manual_seed(classes)
    z = torch.randn(40, classes, generator=generator, dtype=torch.float64) * 3
    y = torch.randint(classes, (40,), generator=generator)
    target = (y + 1 + torch.randint(classes - 1, (40,), generator=generator)) % classes if targeted else None
    v = cotangent(loss, z, y, target)
    placed = (z > z.gather(1, y[:, None])).sum(1)
    for i in range(40):
        if loss == "dlr" and placed[i] > 1:
            # Untargeted, it is constant with the label third: the margin takes its place.
            assert torch.equal(v[i], cotangent("margin", z, y, target)[i])
            continue
        row = z[i].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(printed(loss, row, y[i], None if target is None else target[i]), row)
        cosine = gradient @ v[i] / (gradient.norm() * v[i].norm())
        assert cosine.item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("classes", "targeted"), [(2, False), (2, True), (3, True)])
def test_dlr_with_too_few_classes_is_the_margin(classes, targeted):
    z, y = torch.randn(20, classes, generator=torch.Generator().manual_seed(0)), torch.arange(20) % classes
    target = (y + 1) % classes if targeted else None
    assert torch.equal(cotangent("dlr", z, y, target), cotangent("margin", z, y, target))


def test_dlr_of_three_classes_is_the_ratio():
    z, y = torch.tensor([[3.0, 2.0, -1.0]], dtype=torch.float64), torch.tensor([0])
    row = z[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(printed("dlr", row, 0), row)
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

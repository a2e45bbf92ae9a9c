import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robench_plugins.training.lipschitz.losses import offset_cross_entropy, self_normalizing_cross_entropy


def doubles(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_the_offset_against_numbers_by_hand():
    """s = (1, 0), y = 0, offset ½, T = ¼: CE of (2, 0) is ln(1 + e⁻²) = 0.126928, times ¼."""
    logits = doubles([1.0, 0.0])
    loss = offset_cross_entropy(logits, torch.tensor([0]), 0.5, 0.25)
    assert float(loss) == pytest.approx(0.25 * 0.12692801104297263, abs=1e-15)
    both = offset_cross_entropy(logits.repeat(2, 1), torch.tensor([0, 1]), 0.5, 0.25)
    second = 0.25 * math.log(1 + math.exp(6))  # the label's logit −½ against 1
    assert float(both) == pytest.approx((float(loss) + second) / 2, abs=1e-15)


def test_the_offset_is_the_margin_asked_for():
    """Two classes at a margin m: T·ln(1 + exp((offset − m)/T)), so at m = offset it is T·ln 2 and half-way down."""
    for temperature in (0.1, 1.0):
        margin = doubles([0.7, 0.0]).requires_grad_()
        loss = offset_cross_entropy(margin, torch.tensor([0]), 0.7, temperature)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(temperature * math.log(2))
        assert margin.grad.tolist() == [[pytest.approx(-0.5), pytest.approx(0.5)]]


@pytest.mark.parametrize(
    ("t", "expected"), [(0.0, math.log(1 + math.exp(-1))), (1.0, math.log(2)), (3.0, math.log(1 + math.exp(0.5)))]
)
def test_self_normalising_against_numbers_by_hand(t, expected):
    """s = (1, −1) has the standard deviation 1: the label's logit leads by 2/(1 + t) − 1."""
    loss = self_normalizing_cross_entropy(doubles([1.0, -1.0]), torch.tensor([0]), t)
    assert float(loss) == pytest.approx(expected, abs=1e-10)


@given(scale=st.sampled_from([1e-2, 0.3, 40.0]), shift=st.sampled_from([-5.0, 0.0, 3.0]), seed=st.integers(0, 2**31))
def test_without_t_the_size_of_logits_does_not_count(scale, shift, seed):
    g = torch.Generator().manual_seed(seed)
    logits, y = torch.randn(6, 5, dtype=torch.float64, generator=g), torch.randint(5, (6,), generator=g)
    loss = self_normalizing_cross_entropy(logits, y, 0.0)
    torch.testing.assert_close(self_normalizing_cross_entropy(scale * logits + shift, y, 0.0), loss, rtol=1e-6, atol=0)


def test_with_a_large_t_only_the_size_of_logits_counts():
    """s / t against a lead of 1 of every other class: 1 + 4e to 1 at s = 0, and a slope of 1/t."""
    logits = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    loss = self_normalizing_cross_entropy(logits, torch.tensor([0]), 1e4)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(1 + 4 * math.e), abs=1e-6)
    assert float(logits.grad[0, 0]) == pytest.approx(-1e-4 * 4 * math.e / (1 + 4 * math.e), rel=1e-6)


def test_a_samples_loss_is_its_own():
    g = torch.Generator().manual_seed(0)
    logits, y = torch.randn(4, 5, dtype=torch.float64, generator=g), torch.tensor([0, 1, 2, 4])
    each = [self_normalizing_cross_entropy(logits[i : i + 1], y[i : i + 1], 0.5) for i in range(4)]
    torch.testing.assert_close(self_normalizing_cross_entropy(logits, y, 0.5), torch.stack(each).mean())


def test_equal_logits_have_a_gradient():
    logits = torch.zeros(1, 3, requires_grad=True)
    self_normalizing_cross_entropy(logits, torch.tensor([1]), 0.0).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 1] < 0

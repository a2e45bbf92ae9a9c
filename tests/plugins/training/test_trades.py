import numpy as np
import pytest
import torch
from torch import nn

from robench.contracts import TrainContext
from robench.streams import Stream
from robench.threat import Domain, Epsilon, Threat
from robench_plugins.attacks.regions import Region
from robench_plugins.datasets.digits import Digits
from robench_plugins.training.trades import Trades, divergence

CPU = torch.device("cpu")


def logits(count=7, seed=0):
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(z):
    powers = np.exp(z - z.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_the_divergence_is_that_of_kullback_and_leibler_from_the_clean_output():
    here, there = logits(), 2 * logits(seed=1)
    p, q = softmax(here.numpy()), softmax(there.numpy())
    np.testing.assert_allclose(divergence(here, there), (p * np.log(p / q)).sum(1), rtol=1e-12)
    assert not np.allclose(divergence(here, there), (q * np.log(q / p)).sum(1))
    assert divergence(here, here + 3).abs().max() < 1e-12
    assert torch.isfinite(divergence(1e4 * here, -1e4 * here)).all()


def test_its_gradient_is_that_of_finite_differences():
    here, there = logits().requires_grad_(), logits(seed=1).requires_grad_()
    gradients = torch.autograd.grad(divergence(here, there).sum(), (here, there))
    p, q = (softmax(z.detach().numpy()) for z in (here, there))
    np.testing.assert_allclose(gradients[1], q - p, atol=1e-12)  # in closed form, too
    for side, gradient in enumerate(gradients):
        for place in ((0, 0), (3, 2), (6, 4)):
            ends = []
            for step in (1e-6, -1e-6):
                both = [z.detach().clone() for z in (here, there)]
                both[side][place] += step
                ends.append(float(divergence(*both).sum()))
            assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(gradient[place]), abs=1e-7)


@pytest.mark.parametrize("steps", [1, 10])
def test_the_ascent_on_a_linear_network_ends_in_a_corner_along_the_weights(steps):
    """The divergence between two classes grows with the distance of the margins: along ±sign(w), all the way."""
    g = torch.Generator().manual_seed(0)
    network = nn.Linear(8, 2)
    difference = (network.weight[1] - network.weight[0]).detach()
    x = torch.rand(50, 8, generator=g)
    threat = Threat("linf", 0.05, Domain.unbounded())
    stream = Stream.for_samples(0, "trades", range(50))
    point = Trades(eps=Epsilon.parse("0.05"), steps=steps, step=1.2).ascend(network, Region.around(x, threat), stream)
    side = ((point - x) @ difference).sign()
    torch.testing.assert_close(point - x, 0.05 * side[:, None] * difference.sign())
    assert 5 < int((side > 0).sum()) < 45
    with torch.no_grad():
        assert (divergence(network(x), network(point)) > 0).all()


@pytest.mark.parametrize(("norm", "eps", "order"), [("linf", 0.1, float("inf")), ("l2", 0.5, 2), ("l1", 2.0, 1)])
def test_points_stay_in_ball_and_domain_and_diverge(norm, eps, order):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 3))
    x = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    region = Region.around(x, Threat(norm, eps, Domain()))
    recipe = Trades(norm=norm, eps=Epsilon.parse(eps))
    point = recipe.ascend(network, region, Stream.for_samples(0, "trades", range(40)))
    assert not point.requires_grad
    assert ((point - x).flatten(1).norm(order, dim=1) <= eps * (1 + 1e-5)).all()
    assert point.min() >= 0
    assert point.max() <= 1
    noise = region.project(x + 0.001 * torch.randn(x.shape))
    with torch.no_grad():
        gained = divergence(network(x), network(point)), divergence(network(x), network(noise))
    assert gained[0].mean() > 20 * gained[1].mean()


def test_beta_trades_accuracy_for_robustness():
    train, test = Digits().load("train").select(slice(0, 600)), Digits().load("test")
    x, y = torch.tensor(test.x[:]), torch.tensor(test.y)
    robust = {}
    for beta in (0.0, 6.0):
        module = Trades(beta=beta, epochs=12, steps=4, width=4, lr=0.005).train(train, TrainContext(0, CPU)).module
        point = x.clone().requires_grad_()
        for _ in range(10):
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(module(point), y, reduction="sum"), point)
            point = (point + 0.03 * gradient.sign()).clamp(x - 0.1, x + 0.1).clamp(0, 1).detach().requires_grad_()
        robust[beta] = float((module(point).argmax(1) == y).float().mean())
        assert float((module(x).argmax(1) == y).float().mean()) > 0.85
    assert robust[6.0] > robust[0.0] + 0.1

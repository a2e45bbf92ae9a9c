"""Training against one step: what it minimises, when it fails (001-6), and what keeps it from failing (001-7)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from robench._train_history import co_epoch
from robench.contracts import HeldOut, TrainContext
from robench.samples import Samples
from robench.threat import Domain, Epsilon
from robench_plugins.training import _loop, networks
from robench_plugins.training.fgsm_at import FgsmAt
from robench_plugins.training.gradalign import GradAlign, alignment
from robench_plugins.training.networks import Normalise
from robench_plugins.training.pgd_at import PgdAt

CPU = torch.device("cpu")
EPS = Epsilon.parse("0.125")
PLAIN = {"optimizer": "sgd", "momentum": 0.0, "lr": 1.0, "epochs": 1, "batch": 1000, "eps": EPS}


def phi(weight, x, y):
    """Mean over samples of the largest logistic loss in the linf ball: the margin loses ε‖w‖₁ (000-2)."""
    difference = weight[1] - weight[0]
    margin = (2 * y - 1) * (x @ difference) - EPS.value * np.abs(difference).sum()
    return np.logaddexp(0, -margin).mean()


@pytest.mark.parametrize(
    "recipe",
    [
        FgsmAt(start=False, **PLAIN),
        FgsmAt(alpha=2.0, **PLAIN),  # far enough from any start to reach the corner
        PgdAt(steps=4, **PLAIN),
        GradAlign(align=3.0, **PLAIN),  # gradients of a linear network are aligned: nothing to correct
    ],
    ids=lambda recipe: type(recipe).__name__,
)
def test_a_step_follows_the_gradient_of_the_worst_loss(monkeypatch, recipe):
    """Danskin (001-5): on a linear network the maximiser is known, −ε y sign(w), and unique."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(40, 6)), draw.integers(0, 2, 40)
    start = draw.normal(size=(2, 6))

    def build(*_):
        network = nn.Sequential(Normalise(torch.zeros(6), torch.ones(6)), nn.Linear(6, 2, bias=False))
        with torch.no_grad():
            network[1].weight.copy_(torch.from_numpy(start))
        return network

    monkeypatch.setattr(_loop, "build", build)
    samples = Samples(x.astype(np.float32), y, np.arange(40), Domain.unbounded(), ("a", "b"))
    trained = recipe.train(samples, TrainContext(0, CPU))
    moved = start - trained.module[1].weight.detach().double().numpy()  # learning rate 1: the gradient
    for place in np.ndindex(2, 6):
        step = np.zeros((2, 6))
        step[place] = 1e-6
        wanted = (phi(start + step, x, y) - phi(start - step, x, y)) / 2e-6
        assert moved[place] == pytest.approx(wanted, abs=1e-5)
    assert trained.history[0]["loss"] == pytest.approx(phi(start, x, y), abs=1e-5)


def smooth():
    g = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g, dtype=torch.float64))
    x, u = torch.randn(2, 6, 5, generator=g, dtype=torch.float64)
    return network, x, x + 0.3 * u, torch.arange(6) % 3


def input_gradient(network, x, y):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(nn.functional.cross_entropy(network(x), y, reduction="sum"), x)[0]


def test_the_regulariser_reaches_the_weights_through_the_second_gradient_alone():
    """By finite differences: one gradient as it was, the other with the weight moved."""
    network, x, other, y = smooth()
    fixed = input_gradient(network, x, y)
    weight = network[0].weight
    (gradient,) = torch.autograd.grad(alignment(network, x, other, y).sum(), weight)
    for place in ((0, 0), (2, 3), (3, 4)):
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                weight[place] += step
            moved = input_gradient(network, other, y)
            ends.append(float(nn.functional.cosine_similarity(fixed, moved, dim=1).sum()))
            with torch.no_grad():
                weight[place] -= step
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(gradient[place]), rel=1e-5, abs=1e-8)


def test_alignment_has_no_unit_and_no_direction_where_a_gradient_is_zero():
    network, x, other, y = smooth()
    wanted = nn.functional.cosine_similarity(input_gradient(network, x, y), input_gradient(network, other, y), dim=1)
    torch.testing.assert_close(alignment(network, x, other, y), wanted)
    flat = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        flat[0].bias.fill_(-1e6)
    cosine = alignment(flat, x, other, y)
    assert (cosine == 1).all()
    (gradient,) = torch.autograd.grad(cosine.sum(), flat[0].weight)
    assert (gradient == 0).all()


TINY = {"width": 4, "epochs": 15, "batch": 64, "lr": 0.015, "schedule": "cyclic", "weight_decay": 5e-4}


@pytest.fixture
def tiny(monkeypatch):
    """The network of Andriushchenko & Flammarion 2020, appendix: one convolution of four filters (001-7)."""

    def layers(width, shape, classes):
        yield nn.Conv2d(shape[0], width, 3, padding=1)
        yield nn.ReLU()
        yield nn.Flatten()
        yield nn.Linear(width * shape[1] * shape[2], classes)

    monkeypatch.setattr(networks, "_cnn", layers)


@pytest.fixture(scope="module")
def pictures(data_folder):
    """1,500 and 150 images of CIFAR-10 at half their resolution."""
    with np.load(data_folder / "cifar10/train10k.npz") as file:
        x, y = file["x"][:1650], file["y"][:1650].astype(np.int64)
    x = (x.reshape(1650, 16, 2, 16, 2, 3).mean((2, 4)) / 255).transpose(0, 3, 1, 2).astype(np.float32)
    samples = Samples(np.ascontiguousarray(x), y, np.arange(1650), Domain(), tuple("0123456789"))
    return samples.select(slice(0, 1500)), samples.select(slice(1500, None))


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fgsm_overfits_catastrophically_and_aligned_gradients_keep_it_from_that(tiny, pictures):
    """At ε = 16/255 without a random start: accuracy under PGD and alignment collapse in most of five seeds."""
    eps = Epsilon.parse("16/255")
    train, watched = pictures
    collapsed = 0
    for seed in range(5):
        context = TrainContext(seed, CPU, held_out=HeldOut(watched, eps.value))
        fgsm = FgsmAt(eps=eps, start=False, **TINY).train(train, context).history
        aligned = GradAlign(eps=eps, align=1.0, **TINY).train(train, context).history
        assert co_epoch(aligned) is None
        assert aligned[-1]["pgd"] > 0.1
        assert aligned[-1]["alignment"] > 0.6
        if co_epoch(fgsm) is not None:
            assert fgsm[-1]["pgd"] < 0.05
            assert fgsm[-1]["alignment"] < 0.3
            collapsed += 1
    assert collapsed >= 3


@pytest.mark.parametrize("recipe", [FgsmAt(), FgsmAt(start=False, alpha=0.5), GradAlign()])
def test_points_stay_in_ball_and_domain(monkeypatch, recipe):
    points = []
    samples = Samples(
        np.random.default_rng(0).random((30, 1, 4, 4), np.float32),
        np.arange(30) % 3,
        np.arange(30),
        Domain(),
        tuple("abc"),
    )
    x = torch.tensor(samples.x[:])

    class Watched(nn.Sequential):
        def forward(self, batch):
            points.append(batch.detach())
            return super().forward(batch)

    build = _loop.build
    monkeypatch.setattr(_loop, "build", lambda *given: Watched(*build(*given)))
    monkeypatch.setattr(torch, "randperm", lambda count, **_: torch.arange(count))
    replace(recipe, epochs=1, batch=30, width=2).train(samples, TrainContext(0, CPU))
    reach = 0.1 * (recipe.alpha if not recipe.start and recipe.alpha < 1 else 1)
    for point in points:
        assert ((point - x).abs() <= 0.1 + 1e-6).all()
        assert (point >= 0).all()
        assert (point <= 1).all()
    # The point trained on: at the far end of the ball but where the domain or a flat gradient stops it.
    assert any(float((point - x).abs().mean()) > 0.6 * reach for point in points)

import numpy as np
import pytest
import torch
from torch import nn

from robench.errors import InputError
from robench.samples import Samples
from robench.threat import Domain
from robench_plugins.training import _data
from robench_plugins.training._data import Batches, normalisation
from robench_plugins.training.intervals import propagate
from robench_plugins.training.networks import Normalise, build


def samples_of(x, domain=None):
    x = np.asarray(x)
    return Samples(x, np.zeros(len(x), np.int64), np.arange(len(x)), domain or Domain.unbounded(), ("a", "b"))


def plain(shape):
    return Normalise(torch.zeros(shape), torch.ones(shape))


def hidden_widths(initialisation, seed):
    """Mean widths of the bounds on the input, and after each ReLU, of a wide mlp."""
    g = torch.Generator().manual_seed(seed)
    network = build("mlp", 64, plain(512), (512,), 10, initialisation, g)
    x = torch.randn(20, 512, generator=g)
    lower, upper = x - 1e-3, x + 1e-3
    widths = [2e-3]
    for layer in network.requires_grad_(False):
        lower, upper = propagate(layer, lower, upper)
        if isinstance(layer, nn.ReLU):
            widths.append((upper - lower).mean().item())
    return widths


def test_ibp_initialisation_keeps_the_width_of_bounds():
    """Shi et al. 2021: the difference gain is 1 with their weights, and about √n/π with He's, n the fan-in."""
    start, first, second = hidden_widths("ibp", 0)
    assert first / start == pytest.approx(1, rel=0.1)
    assert second / first == pytest.approx(1, rel=0.1)
    start, first, second = hidden_widths("he", 0)
    assert first / start == pytest.approx(np.sqrt(512 / np.pi), rel=0.1)


def test_he_initialisation_keeps_the_second_moment():
    g = torch.Generator().manual_seed(0)
    network = build("mlp", 64, plain(512), (512,), 10, "he", g)
    x = torch.randn(200, 512, generator=g)
    with torch.no_grad():
        first = network[2](network[1](network[0](x)))
        second = network[4](first.relu())
    for preactivation in (first, second):
        assert float(preactivation.square().mean()) == pytest.approx(2, rel=0.1)
        assert float(preactivation.mean()) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5), (1, 2, 2)])
def test_shapes_and_independence_of_the_global_generator(architecture, shape):
    state = torch.get_rng_state()
    networks = [
        build(architecture, 4, plain((shape[0], 1, 1)), shape, 10, "he", torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.rand(3, *shape)
    assert networks[0](x).shape == (3, 10)
    assert torch.equal(networks[0](x), networks[1](x))
    assert not torch.equal(networks[0](x), networks[2](x))


def test_cnn_refuses_what_is_no_image():
    for shape in ((64,), (8, 8), (1, 1, 8)):
        with pytest.raises(InputError, match="use arch=mlp"):
            build("cnn", 4, plain(1), shape, 10, "he", torch.Generator())


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 5, 5)])
def test_normalisation_is_that_of_the_samples(monkeypatch, shape):
    monkeypatch.setattr(_data, "_ROWS", 9)
    x = np.random.default_rng(0).normal(1000, 3, (50, *shape)).astype(np.float32)
    x[:, 0] = 1.25
    layer = normalisation(samples_of(x))
    axes = (0, *range(2, x.ndim))
    wanted_std = x.astype(float).std(axes)
    wanted_std[0] = 1
    np.testing.assert_allclose(layer.mean.flatten(), x.astype(float).mean(axes), rtol=1e-6)
    np.testing.assert_allclose(layer.std.flatten(), wanted_std, rtol=1e-5)
    y = layer(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-3)
    assert (y[:, 0] == 0).all()


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_an_epoch_holds_every_sample_once_in_a_new_order(monkeypatch, in_memory):
    monkeypatch.setattr(_data, "_IN_MEMORY", in_memory)
    samples = samples_of(np.arange(46, dtype=np.float32).reshape(23, 2))
    batches = Batches(samples, 5, torch.device("cpu"), torch.Generator().manual_seed(0))
    assert len(batches) == 5
    orders = []
    for number in (1, 2):
        epoch = list(batches.epoch(number))
        assert [len(batch.y) for batch in epoch] == [5, 5, 5, 5, 3]
        for batch in epoch:
            assert torch.equal(batch.x[:, 0], 2.0 * batch.rows)
            assert batch.epoch == number
        orders.append(torch.cat([batch.rows for batch in epoch]).tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(23))
    assert orders[0] != orders[1]

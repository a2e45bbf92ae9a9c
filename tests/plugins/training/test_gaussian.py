import pytest
import torch

from robench.contracts import Recipe, TrainContext
from robench.graph import fingerprint, from_torch
from robench_plugins.datasets.digits import Digits
from robench_plugins.training.gaussian import Gaussian
from robench_plugins.training.standard import Standard

TRAIN, TEST = Digits().load("train"), Digits().load("test")
X, Y = torch.tensor(TEST.x), torch.tensor(TEST.y)
CPU = torch.device("cpu")


def accuracy_in_noise(module, sigma, draws=20):
    g = torch.Generator().manual_seed(0)
    noisy = X + sigma * torch.randn(draws, *X.shape, generator=g)
    return float((module(noisy.flatten(0, 1)).argmax(1) == Y.repeat(draws)).float().mean())


def test_it_is_right_in_noise_in_which_standard_training_is_not():
    noisy, clean = (
        recipe.train(TRAIN, TrainContext(0, CPU)).module
        for recipe in (Gaussian(width=8, epochs=10, sigma=0.4), Standard(width=8, epochs=10))
    )
    assert accuracy_in_noise(noisy, 0.4) >= 0.75
    assert accuracy_in_noise(noisy, 0.4) >= accuracy_in_noise(clean, 0.4) + 0.08
    assert float((noisy(X).argmax(1) == Y).float().mean()) >= 0.92


@pytest.fixture
def trained_on(monkeypatch):
    """The noise of every batch that a network is trained on, by epoch, in the samples' own order."""
    import robench_plugins.training.gaussian as module

    def run(recipe, samples, seed):
        rows, noise, original = [], [], module.fit

        def fit(settings, train, context, prepare):
            def spied(network):
                inputs = []
                network.register_forward_pre_hook(lambda layer, args: inputs.append(args[0].detach()))
                batch_loss = prepare(network)

                def watched(batch, part):
                    out = batch_loss(batch, part)
                    rows.append(batch.rows)
                    noise.append(inputs.pop() - batch.x)
                    return out

                return watched

            return original(settings, train, context, spied)

        monkeypatch.setattr(module, "fit", fit)
        recipe.train(samples, TrainContext(seed, CPU))
        monkeypatch.undo()
        order, all_noise = torch.cat(rows), torch.cat(noise)
        count = len(samples)
        return [
            all_noise[start : start + count][order[start : start + count].argsort()]
            for start in range(0, len(order), count)
        ]

    return run


def test_the_noise_is_normal_new_in_each_epoch_and_not_cut(trained_on):
    few = TRAIN.select(slice(0, 300))
    first, second = trained_on(Gaussian(epochs=2, width=2, sigma=0.5), few, 0)
    values = torch.cat([first.flatten(), second.flatten()]) / 0.5
    count = len(values)
    assert abs(float(values.mean())) < 4 / count**0.5
    assert float(values.var()) == pytest.approx(1, abs=4 * (2 / count) ** 0.5)
    assert float((values.abs() > 1.959964).float().mean()) == pytest.approx(0.05, abs=0.005)
    correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
    assert abs(float(correlation)) < 4 / (count / 2) ** 0.5
    points = torch.tensor(few.x[:]) + first
    assert points.min() < -0.5
    assert points.max() > 1.5


def test_a_samples_noise_does_not_depend_on_its_batch(trained_on):
    few = TRAIN.select(slice(0, 100))
    one = trained_on(Gaussian(epochs=1, width=2, batch=100), few, 3)[0]
    other = trained_on(Gaussian(epochs=1, width=2, batch=7), few, 3)[0]
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert not torch.allclose(one, trained_on(Gaussian(epochs=1, width=2), few, 4)[0])


def test_equal_seeds_give_equal_weights_and_touch_nothing_else():
    few, results = TRAIN.select(slice(0, 150)), []
    for seed in (5, 5, 6):
        state = torch.get_rng_state()
        result = Gaussian(epochs=2, width=2).train(few, TrainContext(seed, CPU))
        assert torch.equal(torch.get_rng_state(), state)
        results.append((fingerprint(from_torch(result.module, TEST.shape), torch.float32), result.history))
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]


def test_its_shape():
    assert isinstance(Gaussian(), Recipe)
    assert Gaussian().sigma == 0.25
    result = Gaussian(width=2, epochs=2).train(TRAIN.select(slice(0, 100)), TrainContext(0, CPU))
    assert [set(figures) for figures in result.history] == [{"loss", "accuracy", "lr"}] * 2
    assert not result.module.training

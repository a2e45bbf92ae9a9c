"""The recipe smoothadv: what it trains on, its schedule, and the radii that votes over its networks get."""

import numpy as np
import pytest
import torch
from scipy.stats import beta, norm

from robench.contracts import Recipe, TrainContext
from robench.errors import InputError, SpecError
from robench.graph import fingerprint, from_torch
from robench.registry import load_plugins
from robench.threat import Epsilon
from robench_plugins.datasets.digits import Digits
from robench_plugins.training.gaussian import Gaussian
from robench_plugins.training.smoothadv import SmoothAdv
from robench_plugins.training.standard import Standard

TRAIN, TEST = Digits().load("train"), Digits().load("test")
CPU = torch.device("cpu")
ORDER = {"linf": float("inf"), "l2": 2, "l1": 1}


def average_radius(module, sigma, draws=400, alpha=0.001):
    """Of 150 samples, by Clopper-Pearson about the label: no code of the certifier is used."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.tensor(TEST.x[:150]), torch.tensor(TEST.y[:150])
    hits = np.zeros(len(x))
    with torch.no_grad():
        for _ in range(draws):
            hits += (module(x + sigma * torch.randn(x.shape, generator=g)).argmax(1) == y).numpy()
    low = beta.ppf(alpha, hits, draws - hits + 1)
    return float(np.mean(np.where(low > 0.5, sigma * norm.ppf(np.maximum(low, 0.5)), 0)))


def test_votes_over_it_are_certified_further_than_over_other_training():
    common = {"width": 8, "epochs": 10, "lr": 0.005}
    recipes = Standard(**common), Gaussian(sigma=0.5, **common), SmoothAdv(sigma=0.5, warmup=3, **common)
    plain, noisy, robust = (average_radius(recipe.train(TRAIN, TrainContext(0, CPU)).module, 0.5) for recipe in recipes)
    assert robust >= plain + 0.1
    assert robust >= noisy + 0.02


@pytest.fixture
def passed(monkeypatch):
    """What the network sees in each batch, less the clean inputs: [passes, draws, batch, ...], and the inputs."""
    import robench_plugins.training.smoothadv as module

    def run(recipe, samples, seed=0):
        seen, original = [], module.fit

        def fit(settings, train, context, prepare):
            def spied(network):
                inputs = []
                network.register_forward_pre_hook(lambda layer, args: inputs.append(args[0].detach().clone()))
                batch_loss = prepare(network)

                def watched(batch, part):
                    out = batch_loss(batch, part)
                    stacked = torch.stack(inputs).reshape(len(inputs), recipe.draws, *batch.x.shape)
                    seen.append((stacked - batch.x, batch))
                    inputs.clear()
                    return out

                return watched

            return original(settings, train, context, spied)

        monkeypatch.setattr(module, "fit", fit)
        recipe.train(samples, TrainContext(seed, CPU))
        monkeypatch.undo()
        return seen

    return run


@pytest.mark.parametrize("kind", ["linf", "l2", "l1"])
def test_attack_and_training_share_the_noise_and_the_point_stays_in_the_growing_ball(passed, kind):
    recipe = SmoothAdv(epochs=3, warmup=2, width=2, norm=kind, eps=Epsilon.parse("0.4"), draws=3, steps=2, sigma=0.5)
    for added, batch in passed(recipe, TRAIN.select(slice(0, 130))):
        assert len(added) == recipe.steps + 1
        noise, moved = added[0], added - added[0]
        assert not torch.equal(noise[0], noise[1])
        torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), rtol=0, atol=1e-5)
        delta = moved[-1, 0]
        distance = delta.flatten(1).norm(ORDER[kind], dim=1)
        eps = {1: 0.2, 2: 0.4, 3: 0.4}[batch.epoch]
        assert (distance <= eps * (1 + 1e-4)).all()
        assert distance.mean() > 0.7 * eps
        point = batch.x + delta
        assert point.min() > -1e-5
        assert point.max() < 1 + 1e-5


def test_the_noise_is_normal_a_samples_own_and_new_in_each_epoch(passed):
    few = TRAIN.select(slice(0, 200))

    def noise(recipe, seed=0):
        seen = passed(recipe, few, seed)
        by_epoch = [[(a[0], b.rows) for a, b in seen if b.epoch == epoch] for epoch in range(1, recipe.epochs + 1)]
        return [
            torch.cat([a for a, _ in one], 1)[:, torch.cat([rows for _, rows in one]).argsort()] for one in by_epoch
        ]

    first, second = noise(SmoothAdv(epochs=2, width=2, sigma=0.5))
    values = torch.cat([first.flatten(), second.flatten()]) / 0.5
    assert abs(float(values.mean())) < 4 / len(values) ** 0.5
    assert float(values.var()) == pytest.approx(1, abs=4 * (2 / len(values)) ** 0.5)
    for one, other in ((first, second), (first[0], first[1])):
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 4 / one.numel() ** 0.5
    (alone,) = noise(SmoothAdv(epochs=1, width=2, sigma=0.5, batch=7))
    torch.testing.assert_close(alone, first, rtol=0, atol=1e-6)
    assert not torch.allclose(noise(SmoothAdv(epochs=1, width=2, sigma=0.5), 1)[0], first)


def test_the_radius_grows_linearly_over_the_first_epochs():
    recipe = SmoothAdv(eps=Epsilon.parse("0.8"), warmup=4)
    assert [recipe.radius(epoch) for epoch in (1, 2, 4, 5, 30)] == pytest.approx([0.2, 0.4, 0.8, 0.8, 0.8])
    assert SmoothAdv(eps=Epsilon.parse("0.8"), warmup=0).radius(1) == 0.8


@pytest.mark.parametrize("options", [{}, {"norm": "linf", "draws": 1, "steps": 1}, {"arch": "mlp", "step": 0.7}])
def test_equal_seeds_give_equal_weights_and_touch_nothing_else(options):
    few, results = TRAIN.select(slice(0, 150)), []
    for seed in (5, 5, 6):
        torch.manual_seed(seed + len(results))
        state = torch.get_rng_state()
        result = SmoothAdv(epochs=2, width=2, **options).train(few, TrainContext(seed, CPU))
        assert torch.equal(torch.get_rng_state(), state)
        results.append((fingerprint(from_torch(result.module, TEST.shape), torch.float32), result.history))
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]


def test_its_shape():
    assert isinstance(SmoothAdv(), Recipe)
    result = SmoothAdv(width=2, epochs=3).train(TRAIN.select(slice(0, 100)), TrainContext(0, CPU))
    assert [set(figures) for figures in result.history] == [{"loss", "accuracy", "robust_accuracy", "lr"}] * 3
    assert all(0 <= figures[name] <= 1 for figures in result.history for name in ("accuracy", "robust_accuracy"))
    assert not result.module.training
    with pytest.raises(InputError, match="try a smaller learning rate"):
        SmoothAdv(epochs=3, width=4, optimizer="sgd", lr=1e9).train(TRAIN, TrainContext(0, CPU))


@pytest.mark.parametrize("item", ["sigma=0", "eps=0", "eps=-1", "draws=0", "steps=0", "step=0", "warmup=-1", "norm=l3"])
def test_settings_without_a_meaning_are_refused(item):
    with pytest.raises((SpecError, InputError)):
        load_plugins().resolve("recipes", f"smoothadv:{item}")

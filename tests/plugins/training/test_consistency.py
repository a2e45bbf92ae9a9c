"""The recipe consistency: its two terms against numbers by hand, what it trains on, the radii that it gets."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robench.contracts import Recipe, TrainContext
from robench.errors import SpecError
from robench.graph import fingerprint, from_torch
from robench.registry import load_plugins
from robench_plugins.datasets.digits import Digits
from robench_plugins.training.consistency import Consistency, disagreement

TRAIN, TEST = Digits().load("train"), Digits().load("test")
CPU = torch.device("cpu")


def test_the_terms_by_hand():
    """(.8, .2) and (.4, .6): mean (.6, .4), KL .6 ln(.6/.8) + .4 ln(.4/.2) and .6 ln(.6/.4) + .4 ln(.4/.6)."""
    logits = torch.tensor([[[0.8, 0.2]], [[0.4, 0.6]]], dtype=torch.float64).log() + 3
    divergence, entropy = disagreement(logits)
    first = 0.6 * math.log(0.75) + 0.4 * math.log(2)
    second = 0.6 * math.log(1.5) + 0.4 * math.log(2 / 3)
    assert float(divergence) == pytest.approx((first + second) / 2, abs=1e-12)
    assert float(entropy) == pytest.approx(-0.6 * math.log(0.6) - 0.4 * math.log(0.4), abs=1e-12)


@given(seed=st.integers(0, 2**31), m=st.integers(2, 5), scale=st.sampled_from([0.1, 3.0, 1e4]))
def test_draws_that_agree_have_no_divergence_and_others_a_positive_one(seed, m, scale):
    logits = scale * torch.randn(m, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    divergence, entropy = disagreement(logits)
    assert float(divergence) > 0
    assert 0 <= float(entropy) <= math.log(4) + 1e-12
    assert float(disagreement(logits[:1].expand(m, -1, -1))[0]) == pytest.approx(0, abs=1e-9 * scale)
    turned = disagreement(logits.flip(0))
    assert float(turned[0]) == pytest.approx(float(divergence))


def test_gradients_are_those_of_finite_differences():
    logits = torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(disagreement, (logits,))


def test_draws_agree_more_than_without():
    few = TRAIN.select(slice(0, 600))
    last = {
        weight: Consistency(width=8, epochs=10, lr=0.005, sigma=0.5, divergence=weight, entropy=0.0)
        .train(few, TrainContext(0, CPU))
        .history[-1]
        for weight in (0.0, 20.0)
    }
    assert last[20.0]["divergence"] < last[0.0]["divergence"] / 3


@pytest.mark.parametrize("draws", [2, 4])
def test_it_trains_on_draws_of_their_own(monkeypatch, draws):
    import robench_plugins.training.consistency as module

    seen, original = [], module.fit

    def fit(settings, train, context, prepare):
        def spied(network):
            network.register_forward_pre_hook(lambda layer, args: seen.append(args[0].detach().clone()))
            batch_loss = prepare(network)

            def watched(batch, part):
                out = batch_loss(batch, part)
                seen[-1] = seen[-1].reshape(draws, *batch.x.shape) - batch.x
                return out

            return watched

        return original(settings, train, context, spied)

    monkeypatch.setattr(module, "fit", fit)
    Consistency(width=2, epochs=2, sigma=0.5, draws=draws).train(TRAIN.select(slice(0, 192)), TrainContext(0, CPU))
    assert len(seen) == 6
    values = torch.stack(seen) / 0.5
    count = values.numel()
    assert abs(float(values.mean())) < 4 / count**0.5
    assert float(values.var()) == pytest.approx(1, abs=4 * (2 / count) ** 0.5)
    assert abs(float((values[:, 0] * values[:, 1]).mean())) < 4 / (count / draws) ** 0.5
    assert abs(float((values[:3] * values[3:]).mean())) < 4 / (count / 2) ** 0.5


def test_equal_seeds_give_equal_weights_and_touch_nothing_else():
    few, results = TRAIN.select(slice(0, 150)), []
    for seed in (5, 5, 6):
        state = torch.get_rng_state()
        result = Consistency(epochs=2, width=2).train(few, TrainContext(seed, CPU))
        assert torch.equal(torch.get_rng_state(), state)
        results.append((fingerprint(from_torch(result.module, TEST.shape), torch.float32), result.history))
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]
    assert isinstance(Consistency(), Recipe)
    assert [set(figures) for figures in results[0][1]] == [{"loss", "accuracy", "divergence"}] * 2


@pytest.mark.parametrize("item", ["sigma=0", "draws=1", "divergence=-1", "entropy=-0.1"])
def test_settings_without_a_meaning_are_refused(item):
    with pytest.raises(SpecError):
        load_plugins().resolve("recipes", f"consistency:{item}")

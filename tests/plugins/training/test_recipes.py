from dataclasses import replace

import numpy as np
import pytest
import torch

from robench.contracts import Recipe, TrainContext
from robench.errors import DataError, InputError
from robench.graph import GraphClassifier, fingerprint, from_torch
from robench.graph.intervals import ball_margin_lower
from robench.samples import Samples
from robench.threat import Domain, Epsilon
from robench_plugins.datasets.digits import Digits
from robench_plugins.training.crown_ibp import CrownIbp
from robench_plugins.training.fgsm_at import FgsmAt
from robench_plugins.training.gradalign import GradAlign
from robench_plugins.training.ibp import Ibp
from robench_plugins.training.pgd_at import PgdAt
from robench_plugins.training.standard import Standard
from robench_plugins.training.trades import Trades

TRAIN, TEST = Digits().load("train"), Digits().load("test")
X, Y = torch.tensor(TEST.x), torch.tensor(TEST.y)
CPU = torch.device("cpu")
SHORT = {
    "standard": Standard(width=8, epochs=16),
    "pgd-at": PgdAt(width=8, epochs=8, lr=0.005),
    "fgsm-at": FgsmAt(width=4, epochs=8, lr=0.01),
    "gradalign": GradAlign(width=4, epochs=6, lr=0.01),
    "ibp": Ibp(width=8, epochs=20, lr=0.005),
    "crown-ibp": CrownIbp(width=4, epochs=16, lr=0.01, batch=64),
}


@pytest.fixture(scope="module")
def trained():
    return {name: recipe.train(TRAIN, TrainContext(0, CPU)) for name, recipe in SHORT.items()}


def clean(module):
    return float((module(X).argmax(1) == Y).float().mean())


def under_attack(module, eps, steps=40):
    """Accuracy under sign-gradient ascent with best-so-far bookkeeping, written out: no code of the attacks is used."""
    survives = module(X).argmax(1) == Y
    point = X.clone()
    for step in range(steps):
        point.requires_grad_()
        loss = torch.nn.functional.cross_entropy(module(point), Y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point)
        size = 2 * eps * (1 - step / steps) / 4
        point = (point.detach() + size * gradient.sign()).clamp(X - eps, X + eps).clamp(0, 1)
        survives &= module(point).argmax(1) == Y
    return float(survives.float().mean())


def certified(module, eps):
    graph = from_torch(module, TEST.shape)
    return float((ball_margin_lower(graph, X, Y, "linf", eps, TEST.domain) > 0).float().mean())


def test_standard_training_reaches_97_percent(trained):
    assert clean(trained["standard"].module) >= 0.97


@pytest.mark.parametrize(("name", "least"), [("pgd-at", 0.7), ("fgsm-at", 0.7), ("gradalign", 0.65)])
def test_adversarial_training_resists_attacks_that_break_standard_training(trained, name, least):
    """At ε = 0.1 a single step is enough on digits: no catastrophic overfitting shows there."""
    standard, robust = (under_attack(trained[one].module, 0.1) for one in ("standard", name))
    assert clean(trained[name].module) >= 0.93
    assert robust >= least
    assert robust >= standard + 0.15


def test_ibp_training_certifies_almost_what_no_attack_breaks(trained):
    """Within 5 points. Rigorous bounds in float64 on the saved graph, not those that the training used."""
    module = trained["ibp"].module
    lower, upper = certified(module, 0.1), under_attack(module, 0.1)
    assert lower >= 0.75
    assert lower <= upper <= lower + 0.05
    assert clean(module) >= 0.93
    assert certified(trained["standard"].module, 0.1) == 0


def test_crown_ibp_ends_in_interval_training(trained):
    """β is 0 at the end: intervals alone certify what linear bounds helped to find."""
    module = trained["crown-ibp"].module
    lower, upper = certified(module, 0.1), under_attack(module, 0.1)
    assert lower >= 0.65
    assert lower <= upper <= lower + 0.12
    assert clean(module) >= 0.9


def test_ibp_regularised_at_the_start_learns_too():
    recipe = Ibp(width=4, epochs=3, wait=0.0, ramp=0.9, lr=0.01)
    plain, regularised = (
        replace(recipe, regularise=weight).train(TRAIN, TrainContext(0, CPU)).history for weight in (0.0, 0.5)
    )
    assert regularised[-1]["accuracy"] > 0.7
    assert regularised != plain


@pytest.mark.parametrize("name", SHORT)
def test_results_are_recipes_modules_and_histories(trained, name):
    result = trained[name]
    assert isinstance(SHORT[name], Recipe)
    assert not any(layer.training for layer in result.module.modules())
    assert len(result.history) == SHORT[name].epochs
    if "ibp" not in name:  # whose loss rises with ε
        assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert result.history[-1]["accuracy"] > (0.85 if name == "crown-ibp" else 0.93)
    logits = GraphClassifier(from_torch(result.module, TEST.shape)).logits(X)
    torch.testing.assert_close(logits, result.module(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "recipe",
    [
        Standard(epochs=2),
        Standard(epochs=1, arch="mlp", optimizer="sgd", lr=0.05, weight_decay=1e-3),
        PgdAt(epochs=1, steps=2),
        PgdAt(epochs=1, steps=2, norm="l2", eps=Epsilon.parse(0.5)),
        PgdAt(epochs=1, steps=2, norm="l1", eps=Epsilon.parse(2.0), arch="mlp"),
        Ibp(epochs=1, regularise=0.5, wait=0.0),
        CrownIbp(epochs=1, wait=0.0, batch=100),
        CrownIbp(epochs=1, wait=0.0, arch="mlp", slope="zero"),
        FgsmAt(epochs=1, augment="crop-flip-erase", schedule="one-cycle"),
        GradAlign(epochs=1, schedule="cyclic"),
        Trades(epochs=1, steps=2),
        Trades(epochs=1, steps=2, norm="l2", eps=Epsilon.parse(0.5)),
    ],
    ids=lambda recipe: f"{type(recipe).__name__}-{recipe.arch}-{getattr(recipe, 'norm', '')}",
)
def test_equal_seeds_give_equal_weights_and_touch_nothing_else(recipe):
    recipe = replace(recipe, width=4)
    few = TRAIN.select(slice(0, 200))
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed + len(results))
        state = torch.get_rng_state()
        result = recipe.train(few, TrainContext(seed, CPU))
        assert torch.equal(torch.get_rng_state(), state)
        results.append((fingerprint(from_torch(result.module, TEST.shape), torch.float32), result.history))
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]


def test_each_epoch_is_reported():
    seen = []
    context = TrainContext(0, CPU, lambda epoch, epochs, figures: seen.append((epoch, epochs, dict(figures))))
    result = Standard(width=2, epochs=3).train(TRAIN.select(slice(0, 50)), context)
    assert seen == [(epoch, 3, dict(figures)) for epoch, figures in enumerate(result.history, 1)]


def test_the_adversary_stays_in_ball_and_domain(monkeypatch):
    """Points that the network is trained on, caught on the way in."""
    points = []
    few = TRAIN.select(slice(0, 64))
    clean_x = torch.tensor(few.x[:])
    original = PgdAt._ascend

    def watched(self, live, batch, region, stream):
        point, correct = original(self, live, batch, region, stream)
        points.append((point, clean_x[batch.rows]))
        return point, correct

    monkeypatch.setattr(PgdAt, "_ascend", watched)
    for norm, eps, order in (("linf", 0.1, float("inf")), ("l2", 0.5, 2), ("l1", 2.0, 1)):
        points.clear()
        PgdAt(epochs=2, steps=3, width=2, norm=norm, eps=Epsilon.parse(eps)).train(few, TrainContext(0, CPU))
        for point, x in points:
            distance = (point - x).flatten(1).norm(order, dim=1)
            assert (distance <= eps * (1 + 1e-5)).all()
            assert distance.mean() > 0.8 * eps
            assert point.min() >= 0
            assert point.max() <= 1


def test_the_ibp_schedule():
    recipe = Ibp(wait=0.1, ramp=0.4)
    for part, risen in ((0, 0), (0.1, 0), (0.3, 0.5), (0.5, 1), (0.99, 1)):
        assert recipe.risen(part) == pytest.approx(risen)
    assert Ibp(wait=0.0, ramp=0.0).risen(0.0) == 1
    with pytest.raises(ValueError, match="at most 1 together"):
        Ibp(wait=0.6, ramp=0.5)


@pytest.mark.parametrize("recipe", [Standard(optimizer="sgd", lr=1e9), Ibp(optimizer="sgd", lr=1e9)])
def test_divergence_stops_with_one_line(recipe):
    with pytest.raises(
        InputError, match=r"the loss became \w+ in epoch \d of 3: try a smaller learning rate"
    ) as caught:
        replace(recipe, epochs=3, width=4).train(TRAIN, TrainContext(0, CPU))
    assert "\n" not in str(caught.value)


def test_data_that_cannot_be_trained_on():
    with pytest.raises(DataError, match="no sample to train on"):
        Standard().train(TRAIN.select(slice(0, 0)), TrainContext(0, CPU))
    x = np.array(TRAIN.x[:8])
    x[3, 0, 0, 0] = 1.5
    outside = Samples(x, TRAIN.y[:8], np.arange(8), Domain(), TRAIN.classes)
    with pytest.raises(DataError, match=r"sample 3 holds 1\.5"):
        Standard().train(outside, TrainContext(0, CPU))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", SHORT)
def test_training_on_a_gpu_reaches_the_same_accuracy(name):
    result = SHORT[name].train(TRAIN, TrainContext(0, torch.device("cuda")))
    assert clean(result.module.cpu()) >= 0.93


@pytest.mark.parametrize("recipe", [PgdAt(warmup=4), Trades(warmup=4)])
def test_the_radius_grows_over_the_first_epochs(recipe):
    rise = [recipe.radius(epoch) / recipe.eps.value for epoch in range(1, 7)]
    assert rise == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert recipe.threat(2, TRAIN.domain).eps == recipe.eps.value / 2
    assert replace(recipe, warmup=0).radius(1) == recipe.eps.value

"""What all recipes share: schedules, augmentation, the state of a training, divergence, what is watched."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

from robench._train_history import co_epoch
from robench.contracts import HeldOut, TrainContext, TrainState
from robench.errors import DataError, InputError, SpecError
from robench.registry import load_plugins
from robench.samples import Samples
from robench.threat import Domain
from robench_plugins.datasets.digits import Digits
from robench_plugins.training._augment import augmentation, black, cropped, erased, flipped
from robench_plugins.training._data import Batch
from robench_plugins.training._loop import Method, descend
from robench_plugins.training._monitor import Monitor
from robench_plugins.training._schedules import one_cycle, scheduled
from robench_plugins.training.networks import Normalise
from robench_plugins.training.standard import Standard

CPU = torch.device("cpu")
TRAIN = Digits().load("train").select(slice(0, 100))


def rates(schedule, steps=100, lr=2.0):
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    scheduler, seen = schedule(optimizer, steps), []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_learning_rates():
    cosine = rates(scheduled("cosine", 0.1, (), True))
    assert cosine == pytest.approx([1 + np.cos(np.pi * t / 100) for t in range(100)])
    cyclic = rates(scheduled("cyclic", 0.1, (), True))
    assert cyclic == pytest.approx(np.interp(range(100), [0, 40, 100], [0, 2, 0]).tolist())
    piecewise = rates(scheduled("piecewise", 0.1, (0.25, 0.5), True))
    assert piecewise == pytest.approx([2.0] * 25 + [0.2] * 25 + [0.02] * 50)
    cycle = rates(one_cycle(2.0))
    assert cycle[0] == pytest.approx(2 / 25)
    assert max(cycle) == pytest.approx(2)
    assert cycle.index(max(cycle)) == 29
    assert cycle[-1] < 1e-4


def test_drops_are_parts_of_the_training():
    with pytest.raises(SpecError, match="drops"):
        load_plugins().resolve("recipes", "standard:drops=15+20")


def test_one_cycle_leaves_a_momentum_of_zero_alone():
    for momentum, wanted in ((True, 0.95), (False, 0.0)):
        optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        one_cycle(1.0, momentum)(optimizer, 10)
        assert optimizer.param_groups[0]["momentum"] == wanted


def pictures(count=200, channels=2, height=9, width=6):
    return 0.2 + 0.8 * torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


def test_crops_are_windows_of_the_framed_picture():
    x = pictures()
    draws = torch.rand(200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    got = cropped(x, draws, 0.0)
    framed = np.pad(x.numpy(), ((0, 0), (0, 0), (2, 2), (1, 1)))
    places = set()
    for picture, frame, (down, right) in zip(got.numpy(), framed, draws.tolist(), strict=True):
        row, column = int(down * 5), int(right * 3)
        places.add((row, column))
        assert np.array_equal(picture, frame[:, row : row + 9, column : column + 6])
    assert len(places) == 15


def test_flips_and_erased_rectangles():
    x = pictures()
    draws = torch.rand(200, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    got = flipped(x, draws[:, 0])
    for picture, before, draw in zip(got, x, draws[:, 0], strict=True):
        assert torch.equal(picture, before.flip(2) if draw < 0.5 else before)
    places = set()
    for picture, before in zip(erased(x, draws, (2, 3), 0.0), x, strict=True):
        gone = picture != before
        rows, columns = gone[0].any(1).nonzero().flatten().tolist(), gone[0].any(0).nonzero().flatten().tolist()
        places.add((rows[0], columns[0]))
        assert (len(rows), len(columns), int(gone.sum())) == (2, 3, 2 * 6)
        assert (picture[gone] == 0).all()
    assert len(places) == 8 * 4
    assert (erased(x, draws, (20, 20), 0.5) == 0.5).all()


def test_what_is_not_there_is_black_where_the_domain_has_it():
    assert [black(Domain(*ends)) for ends in ((0, 1), (-1, 1), (0.5, 1), (-2, -1))] == [0, 0, 0.5, -1]


@pytest.mark.parametrize("kind", ["crop", "crop-flip", "crop-flip-erase", "crop-flip-erase-16th"])
def test_augmentation_is_a_samples_own_and_new_in_each_epoch(kind):
    augment = augmentation(kind, TRAIN, 3, CPU)
    x, y = torch.tensor(TRAIN.x[:]), torch.tensor(TRAIN.y)
    batch = Batch(x, y, torch.arange(100), 1)
    first = augment(batch)
    assert first.shape == x.shape
    some = torch.tensor([7, 3, 50])
    assert torch.equal(augment(Batch(x[some], y[some], some, 1)), first[some])
    assert not torch.equal(augment(replace(batch, epoch=2)), first)
    assert not torch.equal(augmentation(kind, TRAIN, 4, CPU)(batch), first)
    gone = (first == 0).flatten(1).sum(1) - (x == 0).flatten(1).sum(1)
    assert gone.float().mean() > 0 or kind == "crop"


def test_augmentation_is_for_pictures():
    flat = Samples(np.zeros((3, 5), np.float32), np.zeros(3, np.int64), np.arange(3), Domain(), ("a", "b"))
    assert augmentation("none", flat, 0, CPU) is None
    with pytest.raises(InputError, match=r"augment=crop needs images \[C, H, W\]"):
        augmentation("crop", flat, 0, CPU)


def linear(generator):
    layer = nn.Linear(64, 10, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.normal_(0, 0.1, generator=generator)
        layer.bias.zero_()
    return nn.Sequential(Normalise(torch.zeros(1, 1, 1), torch.ones(1, 1, 1)), nn.Flatten(), layer)


def method(epochs):
    return Method(
        epochs, 25, 0.1, lambda network: SGD(network.parameters(), lr=0.1), scheduled("piecewise", 0.1, (), True)
    )


def cross_entropy(harm):
    """The loss of a batch, and harm done to it in the third epoch."""

    def prepare(network):
        def loss(batch, part):
            value = nn.functional.cross_entropy(network(batch.x), batch.y)
            return (harm(network, value) if batch.epoch == 3 else value), {}

        return loss

    return prepare


def root(network, value):
    """A finite loss with an infinite gradient."""
    return value + (network[2].bias.sum() - network[2].bias.detach().sum()).clamp_min(0).sqrt()


@pytest.mark.parametrize("harm", [lambda network, value: value * float("nan"), lambda network, value: value / 0, root])
def test_a_loss_or_a_weight_that_is_not_finite_ends_the_training_at_the_epoch_before(harm):
    reported, kept = [], []
    context = TrainContext(
        1, CPU, lambda *report: reported.append(report), keep=lambda state: kept.append(state.history)
    )
    trained = descend(method(5), TRAIN, context, linear, cross_entropy(harm))
    assert len(trained.history) == len(reported) == 3
    assert not np.isfinite(trained.history[-1]["loss"])
    assert [len(history) for history in kept] == [1, 2]
    two = descend(method(2), TRAIN, TrainContext(1, CPU), linear, cross_entropy(harm))
    for one, other in zip(two.module.parameters(), trained.module.parameters(), strict=True):
        assert torch.equal(one, other)
    assert trained.history[:2] == two.history
    assert not trained.module.training


def test_a_first_epoch_that_is_not_finite_is_an_error():
    def prepare(network):
        return lambda batch, part: (network(batch.x).sum() * float("nan"), {})

    with pytest.raises(InputError, match="the loss became nan in epoch 1 of 5: try a smaller learning rate"):
        descend(method(5), TRAIN, TrainContext(1, CPU), linear, prepare)


def states_of(recipe, epochs):
    kept = []

    def keep(state):
        tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
        kept.append(TrainState(state.history, tensors))

    recipe.train(TRAIN, TrainContext(0, CPU, keep=keep))
    assert len(kept) == epochs
    return kept


def test_states_that_do_not_fit_are_refused():
    recipe = Standard(width=2, epochs=3, optimizer="sgd", lr=0.1)
    state = states_of(recipe, 3)[1]
    assert recipe.train(TRAIN, TrainContext(0, CPU, resume=state)).history[:2] == state.history
    wrong = {
        "missing": {name: tensor for name, tensor in state.tensors.items() if name != "module.1.weight"},
        "shape": {**state.tensors, "module.1.weight": torch.zeros(3)},
        "generator": {**state.tensors, "generator": torch.zeros(10, dtype=torch.uint8)},
        "none": {name: tensor for name, tensor in state.tensors.items() if name != "generator"},
        "momentum": {**state.tensors, "optimizer.0.momentum_buffer": torch.zeros(7)},
    }
    for tensors in wrong.values():
        with pytest.raises(DataError, match="does not fit this network"):
            recipe.train(TRAIN, TrainContext(0, CPU, resume=TrainState(state.history, tensors)))
    with pytest.raises(DataError, match="has 4 epochs: too many"):
        recipe.train(TRAIN, TrainContext(0, CPU, resume=TrainState([{}] * 4, state.tensors)))


def test_a_linear_classifier_is_watched_as_the_closed_form_says():
    """Two classes, no box: FGSM and PGD both reach the distance m/‖w‖₁ (000-2), and gradients are parallel."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(20, 2)).double().float()
    x = torch.randn(300, 20, generator=generator)
    y = (x @ (network[0].weight[1] - network[0].weight[0]).detach() > 0).long()
    y[:40] = 1 - y[:40]
    samples = Samples(x.numpy(), y.numpy(), np.arange(300), Domain.unbounded(), ("a", "b"))
    logits = network(x).detach()
    margin = logits.gather(1, y[:, None])[:, 0] - logits.gather(1, 1 - y[:, None])[:, 0]
    radius = margin / (network[0].weight[1] - network[0].weight[0]).detach().abs().sum()
    eps = float(radius[radius > 0].median()) * 1.0001
    network.train()
    figures = Monitor(network, HeldOut(samples, eps), 0, CPU)()
    assert network.training
    wanted = float((radius > eps).float().mean())
    assert 0.3 < wanted < 0.5
    assert figures == pytest.approx({"fgsm": wanted, "pgd": wanted, "alignment": 1.0}, abs=1e-6)


def history(*pairs):
    return [{"fgsm": fgsm / 100, "pgd": pgd / 100} for fgsm, pgd in pairs]


@pytest.mark.parametrize(
    ("pairs", "epoch"),
    [
        ([], None),
        ([(30, 20), (45, 30), (55, 40), (56, 40)], None),
        ([(30, 20), (45, 35), (60, 20), (80, 5), (90, 0)], 4),
        ([(30, 20), (45, 35), (30, 5), (20, 0)], None),  # both fall: no overfitting to the one step
        ([(10, 0), (40, 0), (55, 1), (60, 30)], 3),
        ([(8, 5), (9, 0)], None),
    ],
)
def test_catastrophic_overfitting_is_where_only_the_single_step_is_withstood(pairs, epoch):
    assert co_epoch(history(*pairs)) == epoch
    assert co_epoch([{"loss": 1.0}, *history(*pairs)]) == (None if epoch is None else epoch + 1)

"""eot: attacks on the mean over draws reach the optimum of a randomized classifier, every draw counted."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from oracles.random_linear import DUAL, RandomLinear
from robench.classifier import Counted
from robench.contracts import CompositeAttack, Outcome
from robench.graph import GraphClassifier, from_torch
from robench.registry import load_plugins
from robench.streams import Stream
from robench.threat import Threat
from robench_plugins.attacks.eot import EOT, MeanOfDraws

SAMPLES = RandomLinear().samples(n=12)
X, Y = torch.from_numpy(SAMPLES.x), torch.from_numpy(SAMPLES.y)


class Gain(RandomLinear):
    """Logits times 1 + u, so that every draw has a gradient of its own."""

    def sample(self, x, stream):
        gain = 1 + stream.uniform((1,), dtype=self.dtype)
        return super().sample(x, stream.child("noise")) * gain


def attack(spec):
    return load_plugins().resolve("attacks", spec).value


def perturb(value, classifier, norm="linf", eps=0.1, rows=None, seed=0):
    rows = torch.arange(len(X)) if rows is None else rows
    threat = Threat(norm, eps, SAMPLES.domain)
    stream = Stream.for_samples(seed, "a | eot", SAMPLES.index[rows.numpy()].tolist())
    return value.perturb(classifier, X[rows], Y[rows], threat, stream)


def test_values_are_over_the_same_draws_everywhere():
    model = RandomLinear(sigma=1.0)
    noise = []
    for draws in (1, 16):
        for seed in range(200):
            mean = MeanOfDraws(model, Stream.for_samples(seed, "a | eot", [4]), draws)
            added = mean.logits(X) - MeanOfDraws(RandomLinear(sigma=0.0), Stream.for_samples(0, "e", [4]), 1).logits(X)
            assert float(added.std(0).max()) < 1e-6
            noise.append(float(added[0, 0]) * draws**0.5)
    for part in (noise[:200], noise[200:]):
        assert abs(np.std(part) - 1) < 4 / 400**0.5
        assert abs(np.mean(part)) < 4 / 200**0.5


def test_gradients_are_over_new_draws_wherever_a_row_moves_and_the_same_ones_in_any_batch():
    stream = Stream.for_samples(0, "a | eot", [1, 2])

    def gradient(x, stream=stream):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(MeanOfDraws(Gain(sigma=0.5), stream, 5).logits(x)[:, 0].sum(), x)[0]

    whole, order = gradient(X), torch.tensor([5, 0, 5, 11])
    assert torch.allclose(gradient(X[order], Stream.for_samples(0, "a | eot", [9])), whole[order], rtol=1e-5)
    for other in (gradient(X + 1e-6), gradient(X, Stream.for_samples(1, "a | eot", [1]))):
        assert ((other - whole).abs() > 1e-3 * whole.abs()).all(1).sum() > 10
    mean = MeanOfDraws(RandomLinear(), stream, 5)
    assert mean.logits(X[:0]).shape == (0, 2)
    assert not mean.logits(X).requires_grad


def test_the_gradient_is_the_mean_gradient():
    model = Gain(dtype=torch.float64)
    x = X.double().requires_grad_()
    stream = Stream.for_samples(0, "e", range(3))
    (found,) = torch.autograd.grad(MeanOfDraws(model, stream, 7).logits(x)[:, 0].sum(), x)
    gains = 1 + stream.of_rows(x).repeat(7, "draw").uniform((1,), dtype=torch.float64)
    expected = gains.reshape(7, len(x)).mean(0)[:, None] * model.weight / 2
    assert torch.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("spec", ["pgd:steps=12,targets=0", "apgd:steps=12"])
def test_it_finds_the_optimum(spec, norm):
    # Noise far above the margins: a single draw says nothing, and steps that stop at an error stop anywhere.
    model = RandomLinear(sigma=1.0)
    eps = {"linf": 0.05, "l2": 0.1, "l1": 0.15}[norm]
    points = perturb(attack(f"{spec} | eot"), model, norm, eps).points
    got = model.margin(SAMPLES.x, SAMPLES.y) - model.margin(points.numpy(), SAMPLES.y)
    best = eps * np.linalg.norm(model.w, DUAL[norm])
    assert got.min() > 0.999 * best
    assert got.max() < best * (1 + 1e-5)


def test_without_early_exit_the_search_goes_past_the_first_error_of_the_mean():
    # At clean margins below 0 the mean errs at once: the worst point is as far from there as from anywhere.
    model = RandomLinear(sigma=1.0)
    wrong = torch.from_numpy(np.flatnonzero(model.margin(SAMPLES.x, SAMPLES.y) < 0))
    assert len(wrong)
    for spec in ("pgd:steps=12,targets=0", "apgd:steps=12"):
        points = perturb(attack(f"{spec} | eot"), model, rows=wrong).points
        moved = model.margin(SAMPLES.x[wrong], SAMPLES.y[wrong]) - model.margin(points.numpy(), SAMPLES.y[wrong])
        assert moved.min() > 0.999 * 0.1 * np.abs(model.w).sum()


@pytest.mark.parametrize("spec", ["pgd:steps=6,targets=0 | eot:draws=4", "apgd:steps=8 | eot:draws=3"])
def test_points_do_not_depend_on_the_batch_and_follow_the_seed(spec):
    model = RandomLinear(sigma=1.0)
    value = attack(spec)
    whole = perturb(value, model)
    for rows in (torch.arange(12).flip(0), torch.tensor([3]), torch.arange(2, 9)):
        part = perturb(value, model, rows=rows)
        assert torch.equal(part.points, whole.points[rows])
        assert [part.detail[i] for i in range(len(rows))] == [whole.detail[int(i)] for i in rows]
    assert perturb(value, model, seed=1).detail != whole.detail


@pytest.mark.parametrize("spec", ["pgd:steps=5,targets=1", "fgsm", "apgd:steps=6,targets=1"])
def test_every_draw_is_counted(spec):
    model = RandomLinear(sigma=1.0)
    for draws in (1, 5, 30):
        counted = Counted(model)
        model.asked.clear()
        made = perturb(attack(f"{spec} | eot:draws={draws}"), counted)
        forwards, backwards = counted.take()
        assert forwards == sum(model.asked) == int(made.passes.forwards.sum())
        assert backwards == int(made.passes.backwards.sum())
        assert max(model.asked) <= max(len(X), draws)
        expected = Counted(GraphClassifier(from_torch(torch.nn.Linear(6, 2).eval(), (6,))))
        perturb(attack(spec + ("" if spec == "fgsm" else ",early_exit=false")), expected)
        ahead, back = expected.take()
        assert (forwards, backwards) == (draws * (ahead + back), draws * back)


def test_classifiers_that_do_not_draw_are_attacked_as_without_it():
    torch.manual_seed(0)
    model = Counted(GraphClassifier(from_torch(torch.nn.Linear(6, 2).eval(), (6,))))
    plain, modified = (perturb(attack(spec), model) for spec in ("pgd:steps=9", "pgd:steps=9 | eot"))
    assert torch.equal(plain.points, modified.points)
    assert plain.detail == modified.detail


def test_what_an_attack_says_of_itself_stays():
    assert attack("square | eot").access == "logits"
    assert not attack("ddn | eot").per_eps
    assert attack("pgd | eot").applies(RandomLinear(), "linf") is None
    assert attack("ddn | eot").applies(RandomLinear(), "linf") is not None

    class Blunt(RandomLinear):
        def sample(self, x, stream):
            return super().sample(x, stream).detach()

    assert "gradient" in attack("pgd | eot").applies(Blunt(), "linf")
    assert attack("square | eot").applies(Blunt(), "linf") is None


def test_every_stage_of_a_schedule_is_modified():
    @dataclass(frozen=True)
    class Schedule(CompositeAttack):
        def stages(self, classifier, threat):
            assert classifier.logits(X).shape == (12, 2)
            outcome = yield "fgsm", attack("fgsm"), None
            yield "pgd", attack("pgd"), outcome.broken

    model = Counted(RandomLinear())
    found = EOT(draws=3).modify(Schedule()).stages(model, Threat("linf", 0.1, SAMPLES.domain))
    spec, stage, mask = next(found)
    assert (spec, mask) == ("fgsm | eot:draws=3", None)
    assert stage == EOT(draws=3).modify(attack("fgsm"))
    broken = torch.arange(12) % 2 == 0
    count = torch.zeros(12, dtype=torch.int64)
    spec, stage, mask = found.send(Outcome(broken, count.double(), count, count, [None] * 12))
    assert (spec, mask.tolist()) == ("pgd | eot:draws=3", broken.tolist())
    with pytest.raises(StopIteration):
        next(found)
    assert next(EOT().modify(Schedule()).stages(model, Threat("linf", 0.1, SAMPLES.domain)))[0] == "fgsm | eot"

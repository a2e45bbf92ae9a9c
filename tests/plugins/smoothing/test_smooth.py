"""The smoothed classifier: its votes against closed forms, its independence of batches, its abstentions."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, kstest, norm

from oracles.voters import Constant, half
from robench.errors import InputError
from robench.streams import Stream
from robench_plugins.smoothing._votes import rows_per_pass
from robench_plugins.smoothing.noises import Gaussian, Uniform
from robench_plugins.smoothing.smooth import Smooth, SmoothedClassifier

# What a correct count fails with once in a million.
RARE = 1e-6


def streams(count, seed=0):
    return Stream.for_samples(seed, "test", range(count))


def smoothed(base, noise=None, n=1000):
    return SmoothedClassifier(base, noise or Gaussian(0.5), "smooth:sigma=0.5", n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(12,), (3, 2, 2)])
@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_votes_of_a_half_space_are_those_of_the_normal_distribution(dtype, sigma, shape):
    base = half(dtype=dtype, shape=shape)
    margins = (-0.5, 0.0, 0.1, 0.4, 1.0)
    votes = smoothed(base, Gaussian(sigma)).draws(base.at(*margins), streams(5)).count(range(5), [20_000] * 5)
    assert votes.sum(1).tolist() == [20_000] * 5
    for margin, count in zip(margins, votes[:, 1].tolist(), strict=True):
        assert binomtest(count, 20_000, float(norm.cdf(margin / sigma))).pvalue > RARE


def test_uniform_votes_of_an_axis_parallel_half_space():
    base = half(1)
    base.weight = torch.tensor([1.0], dtype=torch.float64)
    noise = Uniform(0.5)
    margins = (0.0, 0.2, 0.6, 0.9)
    votes = smoothed(base, noise).draws(base.at(*margins), streams(4)).count(range(4), [20_000] * 4)
    for margin, count in zip(margins, votes[:, 1].tolist(), strict=True):
        p = min(0.5 + margin / (2 * noise.half_width), 1.0)
        assert binomtest(count, 20_000, p).pvalue > RARE


@pytest.mark.parametrize("made", [Gaussian, Uniform])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_its_distribution(made, dtype):
    noise = made(0.3)
    cdf = norm(0, 0.3).cdf if made is Gaussian else lambda u: np.clip((u / noise.half_width + 1) / 2, 0, 1)
    bulk = torch.empty(20_000, dtype=dtype)
    noise.fill(bulk, torch.Generator().manual_seed(1))
    single = noise.draw(streams(1), (20_000,), dtype)[0]
    for drawn in (bulk, single):
        assert drawn.dtype == dtype
        assert kstest(drawn.double().numpy(), cdf).pvalue > RARE
        assert float(drawn.double().std()) == pytest.approx(0.3, rel=0.03)


@pytest.mark.parametrize("shape", [(12,), (3, 2, 2)])
def test_votes_depend_on_neither_batch_nor_rows_in_a_pass(shape):
    base = half(shape=shape)
    classifier = smoothed(base)
    x, wanted = base.at(0.05, 0.3, -0.2, 0.1, 0.0), [100, 33, 64, 1, 0]
    whole = classifier.draws(x, streams(5)).count(range(5), wanted)
    assert whole.sum(1).tolist() == wanted
    for rows in (1, 7, 50, 4096):
        assert torch.equal(classifier.draws(x, streams(5), rows).count(range(5), wanted), whole)
    for i in range(5):
        alone = classifier.draws(x[i : i + 1], streams(5).select(torch.tensor([i])))
        assert torch.equal(alone.count([0], wanted[i : i + 1]), whole[i : i + 1])
    order = torch.tensor([3, 1, 4, 0, 2])
    permuted = classifier.draws(x[order], streams(5).select(order)).count(range(5), [wanted[i] for i in order])
    assert torch.equal(permuted, whole[order])


def test_later_votes_do_not_depend_on_who_was_asked_before():
    base = half()
    x = base.at(0.0, 0.1, 0.2)
    together, apart = (smoothed(base).draws(x, streams(3)) for _ in range(2))
    together.count([0, 1, 2], [100, 100, 100])
    second = together.count([0, 1, 2], [500, 500, 500])
    apart.count([1], [100])
    assert torch.equal(apart.count([1], [500])[0], second[1])


def test_votes_asked_for_one_after_the_other_are_fresh():
    base = half()
    draws = smoothed(base).draws(base.at(0.0), streams(1))
    counts = {int(draws.count([0], [10_000])[0, 1]) for _ in range(8)}
    assert len(counts) > 4


def test_passes_are_bounded_whatever_the_number_of_draws():
    base = half()
    draws = smoothed(base).draws(base.at(0.0, 0.1), streams(2), rows=48)
    draws.count([0, 1], [5000, 777])
    assert max(base.passes) <= 48
    assert sum(base.passes) == 5777


def test_rows_of_a_pass_are_bounded():
    for device in (torch.device("cpu"), torch.device("cuda")):
        for size in (1, 784, 3072, 150_528, 10**8):
            assert 32 <= rows_per_pass(size, device) <= 4096


def test_predict_gives_the_vote_or_abstains():
    base = half()
    classifier = smoothed(base)
    found = classifier.predict(base.at(0.5, -0.5, 0.0, 2.0), streams(4), 0.001)
    assert found.dtype == torch.int64
    assert found.tolist() == [1, 0, -1, 1]


def test_predict_is_rarely_wrong_and_abstains_at_the_boundary():
    base = half(2)
    # On the boundary either class would be an answer with probability at most α.
    answers = smoothed(base, n=200).predict(base.at(*[0.0] * 400), streams(400), 0.05)
    assert binomtest(int((answers != -1).sum()), 400, 0.05, "greater").pvalue > RARE


def test_predict_abstains_where_most_draws_have_no_vote():
    for logits in ((1.0, 1.0, 0.0), (math.nan, 1.0, 0.0)):
        assert smoothed(Constant(*logits)).predict(torch.zeros(2, 3).double(), streams(2), 0.001).tolist() == [-1, -1]
    assert smoothed(Constant(0.0, 2.0, 1.0)).predict(torch.zeros(1, 3).double(), streams(1), 0.001).tolist() == [1]


def test_predict_repeats_with_equal_streams_and_leaves_the_global_state():
    base = half()
    state = torch.get_rng_state()
    first, second = (smoothed(base, n=50).predict(base.at(*[0.1] * 20), streams(20), 0.3) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_votes_are_counted_in_inference_mode_too():
    base = half()
    plain = smoothed(base).predict(base.at(0.5, 0.0), streams(2), 0.001)
    with torch.inference_mode():
        assert torch.equal(smoothed(base).predict(base.at(0.5, 0.0), streams(2), 0.001), plain)


def test_fewer_rows_are_passed_where_memory_ends_and_the_votes_stay():
    base = half()
    whole = smoothed(base).draws(base.at(0.1), streams(1)).count([0], [1000])

    class Small(type(base)):
        def scores(self, x):
            if len(x) > 30:
                raise torch.cuda.OutOfMemoryError("full")
            return super().scores(x)

    small = Small(base.weight)
    assert torch.equal(smoothed(small).draws(base.at(0.1), streams(1)).count([0], [1000]), whole)
    assert sum(rows for rows in small.passes if rows <= 30) == 1000
    with pytest.raises(torch.cuda.OutOfMemoryError):
        small.scores = lambda x: Small.scores(small, torch.zeros(31, 12))
        smoothed(small).draws(base.at(0.1), streams(1)).count([0], [4])


def test_nothing_is_drawn_for_no_samples():
    base = half()
    assert smoothed(base).predict(base.at(0.1)[:0], streams(0), 0.001).tolist() == []


def test_sample_is_one_draw_and_differentiable():
    base = half()
    x = base.at(*[0.25] * 4000).requires_grad_()
    logits = smoothed(base).sample(x, streams(4000))
    assert binomtest(int((logits[:, 1] > 0).sum()), 4000, float(norm.cdf(0.5))).pvalue > RARE
    logits[:, 1].sum().backward()
    assert torch.allclose(x.grad, base.weight.expand_as(x))


def test_bad_input_is_refused():
    base = half()
    classifier = smoothed(base)
    x = base.at(0.1, 0.2)
    with pytest.raises(InputError, match="float32"):
        classifier.predict(x.float(), streams(2), 0.001)
    with pytest.raises(InputError, match="int64"):
        classifier.predict(x.long(), streams(2), 0.001)
    with pytest.raises(InputError, match="inputs are"):
        classifier.predict(x[:, :3], streams(2), 0.001)
    with pytest.raises(InputError, match="3 streams for 2 samples"):
        classifier.predict(x, streams(3), 0.001)
    for alpha in (0.0, 1.0, math.nan):
        with pytest.raises(InputError, match="alpha"):
            classifier.predict(x, streams(2), alpha)
    with pytest.raises(InputError, match="rows"):
        classifier.draws(x, streams(2), rows=0)


def test_logits_of_another_shape_are_refused():
    base = Constant(1.0, 0.0)
    base.classes = 3
    with pytest.raises(InputError, match="the model gives"):
        smoothed(base).predict(torch.zeros(1, 3).double(), streams(1), 0.001)


def test_wrapper_names_the_function():
    base = half()
    plain, more, other = (
        Smooth(sigma=0.5).wrap(base),
        Smooth(sigma=0.5, n=11).wrap(base),
        Smooth(sigma=0.25).wrap(base),
    )
    assert isinstance(plain, SmoothedClassifier)
    assert plain.fingerprint == more.fingerprint
    uniform = Smooth(sigma=0.5, noise="uniform").wrap(base)
    assert len({base.fingerprint, plain.fingerprint, other.fingerprint, uniform.fingerprint}) == 4
    assert isinstance(uniform.noise, Uniform)
    with pytest.raises(InputError, match="draws at inference"):
        Smooth(sigma=0.25).wrap(plain)


@pytest.mark.parametrize(
    ("noise", "name", "eps"), [(Gaussian(0.5), "l2", 0.4), (Gaussian(0.5), "linf", 0.03), (Uniform(0.5), "l1", 0.4)]
)
def test_threshold_is_where_the_radius_is_epsilon(noise, name, eps):
    for dimension in (1, 2, 12, 3072 if eps < 0.1 else 9):
        p0 = noise.threshold(eps, name, dimension)
        assert noise.radius(p0, name, dimension) == pytest.approx(eps, rel=1e-9)
        assert noise.radius(min(p0 + 1e-12, 1.0), name, dimension) >= eps


def test_noise_certifies_in_its_norms_alone():
    with pytest.raises(ValueError, match="not in l1"):
        Gaussian(0.5).radius(0.9, "l1", 3)
    with pytest.raises(ValueError, match="not in l2"):
        Uniform(0.5).threshold(0.1, "l2", 3)

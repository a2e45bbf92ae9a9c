"""Made-up data against the closed forms of the papers that they are from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robench.errors import DataError
from robench.testing import check_dataset
from robench_plugins.datasets import _synthetic
from robench_plugins.datasets.fragility import GaussianPoints, Lattice
from robench_plugins.datasets.gaussian_mixture import GaussianMixture
from robench_plugins.datasets.generators import HalfSpace, LinearGenerator
from robench_plugins.datasets.hypercube import Hypercube
from robench_plugins.datasets.spheres import Spheres

CUBE = Hypercube(64, test=3000)
SMALL = [
    Hypercube(16, test=20),
    GaussianMixture(d=6, n=30, test=20),
    Spheres(d=6, n=30, test=20),
    Lattice(d=4),
    GaussianPoints(d=5),
    HalfSpace(d=3, n=30, test=20),
    LinearGenerator(latent=3, dim=5, classes=4, n=30, test=20),
]

# The first digits of the hash of the split train: results of years are joined by it.
HASHES = {
    Hypercube: "1dafe906396fac8d",
    GaussianMixture: "be63b9a106a273aa",
    Spheres: "394963261d714aff",
    Lattice: "9db57210189c8938",
    GaussianPoints: "7eac131ccef3daae",
    HalfSpace: "80abadc3abb131de",
    LinearGenerator: "0324b17f0f87bc21",
}


def agree(share, wanted, n):
    """A frequency of n draws, within five standard deviations."""
    return abs(share - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / n) + 1e-9


@pytest.mark.parametrize("data", SMALL, ids=lambda data: type(data).__name__)
def test_every_one(data):
    check_dataset(data)
    from dataclasses import replace

    train = data.load("train")
    assert train.digest().startswith(HASHES[type(data)])
    assert train.domain.bounded == isinstance(data, Hypercube)
    assert replace(data, seed=1).load("train").digest() != train.digest()
    with pytest.raises(DataError, match="no split 'val': choose train or test"):
        data.load("val")
    if hasattr(data, "test"):
        assert not np.isin(data.load("test").x[:].sum(1), train.x[:].sum(1)).any() or isinstance(data, Hypercube)
        assert len(data.load("test")) == 20


@pytest.mark.parametrize("data", [d for d in SMALL if hasattr(d, "n")], ids=lambda data: type(data).__name__)
def test_fewer_samples_are_the_first_of_more(data, monkeypatch):
    from dataclasses import replace

    if isinstance(data, Hypercube):
        data, split, more = replace(data, test=5), "test", replace(data, test=20)
    else:
        data, split, more = replace(data, n=5), "train", replace(data, n=30)
    few, many = data.load(split), more.load(split)
    assert np.array_equal(few.x[:], many.x[:5]) and np.array_equal(few.y, many.y[:5])
    monkeypatch.setattr(_synthetic, "_BLOCK", 7)  # some rows at a time, or all
    assert np.array_equal(more.load(split).x[:], many.x[:])


def test_too_many_numbers_are_refused():
    with pytest.raises(DataError, match="10000000 samples of 1000000 numbers are more than 2147483648: take fewer"):
        HalfSpace(d=1_000_000, n=10_000_000).load("train")


@pytest.mark.parametrize(("n", "d"), [(1, 7), (2, 8), (16, 11), (17, 12), (64, 13), (256, 15), (60000, 23)])
def test_the_hypercubes_dimension(n, d):
    assert Hypercube(n).dimension == d


def test_the_hypercube_is_that_of_the_theorem():
    for split in ("train", "test"):
        samples = CUBE.load(split)
        x, label = samples.x[:], 2 * samples.y - 1
        assert (np.abs(x[:, :-1]) == 1).all()
        assert np.array_equal(x[:, -1], np.float32(0.1) * label)
        assert np.array_equal(np.sign(x[:, -1]), label)  # the linear classifier, 100 %
    assert abs(x[:, :-1].mean()) < 5 / np.sqrt(x[:, :-1].size)
    assert agree(samples.y.mean(), 0.5, len(samples))
    # A function: equal corners, equal labels, in both splits.
    corners = {}
    for split in ("train", "test"):
        samples = CUBE.load(split)
        for row, y in zip(samples.x[:, :-1], samples.y, strict=True):
            assert corners.setdefault(row.tobytes(), y) == y


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.999))
def test_the_robust_classifier_is_right_within_less_than_one(seed, size):
    samples = CUBE.load("train")
    noise = np.random.default_rng(seed).choice([-1.0, 1.0], samples.x.shape)
    assert np.array_equal(CUBE.robust(samples.x[:] + size * noise), samples.y)
    towards = samples.x[:] * (1 - size)  # every coordinate towards 0, the last one away from its label
    towards[:, -1] = -towards[:, -1]
    assert np.array_equal(CUBE.robust(towards), samples.y)


def test_no_learner_is_robust_on_the_hypercube():
    """One that remembers every corner, without the last coordinate: 1/2 + P(seen)/2, averaged over φ; bound .5078."""
    n, seeds, tests = 64, 120, 300
    right = 0
    for seed in range(seeds):
        data = Hypercube(n, test=tests, seed=seed)
        train, test = data.load("train"), data.load("test")
        memory = {row.tobytes(): y for row, y in zip(train.x[:, :-1], train.y, strict=True)}
        right += sum(memory.get(row.tobytes(), 1) == y for row, y in zip(test.x[:, :-1], test.y, strict=True))
    seen = 1 - (1 - 2.0**-12) ** n
    assert agree(right / (seeds * tests), 0.5 + seen / 2, seeds * tests)
    assert 0.5 + seen / 2 <= 0.5 + n / 2**13 == 0.5078125


@pytest.mark.parametrize("eps", [0.0, 0.3, 1.0])
def test_the_gaussians_accuracies_are_those_of_the_closed_form(eps):
    data = GaussianMixture(d=50, sigma=4.0, n=20_000)
    theta, samples = data.theta, data.load("train")
    assert np.linalg.norm(theta) == pytest.approx(np.sqrt(50))
    x, y = samples.x[:].astype(float), 2 * samples.y - 1
    assert agree(samples.y.mean(), 0.5, len(y))
    noise = (x - y[:, None] * theta) / 4
    assert stats.kstest(noise[::10].ravel(), "norm").pvalue > 1e-3
    # linf: the weights θ shrunk by ε; l2: θ. The robust accuracy of a linear classifier is exact.
    shrunk = np.sign(theta) * np.maximum(np.abs(theta) - eps, 0)
    for weights, loss, norm in (
        (shrunk, eps * np.abs(shrunk).sum(), np.linalg.norm(shrunk)),
        (theta, eps * np.linalg.norm(theta), np.sqrt(50) - eps),
    ):
        robust = (y * (x @ weights) - loss > 0).mean()
        assert agree(robust, stats.norm.cdf(norm / 4), len(y))


def test_points_are_uniform_on_their_spheres():
    data = Spheres(d=9, outer=1.5, n=6000)
    samples = data.load("train")
    x, norms = samples.x[:].astype(float), np.linalg.norm(samples.x[:].astype(float), axis=1)
    assert np.allclose(norms, np.where(samples.y == 1, 1.5, 1.0), rtol=1e-6)
    assert agree(samples.y.mean(), 0.5, len(samples))
    # A coordinate c of a uniform direction: (1 + c) / 2 is Beta((d − 1)/2, (d − 1)/2).
    for column in (0, 8):
        assert stats.kstest((1 + x[:, column] / norms) / 2, stats.beta(4, 4).cdf).pvalue > 1e-3
    assert abs(np.corrcoef((x / norms[:, None]).T) - np.eye(9)).max() < 5 / np.sqrt(6000)
    # The threshold on the norm: every robust radius is (R − 1) / 2.
    assert np.allclose(np.abs(norms - 1.25), 0.25, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_the_lattice_is_every_point_once(scale):
    data = Lattice(d=8, scale=scale)
    samples, a = data.load("train"), data.basis
    z = np.array([[1.0 if code >> bit & 1 else -1.0 for bit in range(8)] for code in range(256)])
    assert np.allclose(samples.x[:], z @ a.T, rtol=1e-5, atol=1e-5)
    assert np.array_equal(samples.y, (z[:, -1] > 0).astype(int))
    assert len(np.unique(samples.x[:], axis=0)) == 256
    assert np.allclose(a[:, :-1], scale * Lattice(d=8).basis[:, :-1]) and np.allclose(
        a[:, -1], Lattice(d=8).basis[:, -1]
    )
    # Neighbours that differ in the label alone are 2 ‖a_d‖ apart.
    apart = np.linalg.norm(samples.x[128:].astype(float) - samples.x[:128], axis=1)
    assert np.allclose(apart, 2 * np.linalg.norm(a[:, -1]), rtol=1e-5)
    # The linear classifier with values ±1 is |R_dd| away from every sample.
    w = np.linalg.solve(a.T, np.eye(8)[-1])
    distances = np.abs(samples.x[:].astype(float) @ w) / np.linalg.norm(w)
    assert np.allclose(distances, np.abs(np.linalg.qr(a)[1][-1, -1]), rtol=1e-4)
    assert data.load("test").digest() == samples.digest()


def test_lattices_are_gaussian():
    entries = np.concatenate([Lattice(d=8, seed=seed).basis.ravel() for seed in range(60)])
    assert stats.kstest(entries, "norm").pvalue > 1e-3
    # Its mean is Γ(d/2) / (√π Γ((d+1)/2)): the share of the last column that a linear network sees.
    phi = [
        abs(np.linalg.qr(a)[1][-1, -1]) / np.linalg.norm(a[:, -1])
        for a in (Lattice(d=12, seed=s).basis for s in range(400))
    ]
    assert abs(np.mean(phi) - 0.2352) < 5 * np.std(phi) / 20


def test_the_linear_network_on_gaussian_points_is_as_fragile_as_the_theorem_says():
    numerators = []
    for seed in range(30):
        samples = GaussianPoints(d=40, seed=seed).load("train")
        assert np.array_equal(samples.y, np.arange(40))
        x = samples.x[:].astype(float)
        w = np.linalg.inv(x).T  # f_j(x_i) = 1[i = j]
        assert np.allclose(x @ w.T, np.eye(40), atol=1e-6)
        radius = 1 / np.linalg.norm(w[-2] - w[-1])  # margin 1 between the classes d − 1 and d
        r = np.linalg.qr(x.T)[1]
        bound = abs(r[-2, -2]) + abs(r[-2, -1]) + abs(r[-1, -1])
        assert radius <= bound
        numerators.append(bound)
        gaps = np.linalg.norm(x[:, None] - x, axis=2)[~np.eye(40, dtype=bool)]
        assert gaps.min() / 2 > 0.5 * np.sqrt(2 * 40) / 2 > 2
    # |χ_2| + |N| + |N|: the mean is √(π/2) + 2 √(2/π), whatever d.
    assert abs(np.mean(numerators) - (np.sqrt(np.pi / 2) + 2 * np.sqrt(2 / np.pi))) < 5 * np.std(numerators) / np.sqrt(
        30
    )


def test_half_space_is_where_theorem_one_is_an_equality():
    samples = HalfSpace(d=5, scale=3.0, n=20_000).load("train")
    x = samples.x[:].astype(float)
    assert np.array_equal(samples.y, x[:, 0] >= 0)
    for eta in (1.0, 3.0, 6.0):
        assert agree((np.abs(x[:, 0]) <= eta).mean(), 2 * stats.norm.cdf(eta / 3) - 1, len(x))
    assert stats.kstest(x.ravel() / 3, "norm").pvalue > 1e-3


def test_the_linear_generator():
    data = LinearGenerator(latent=6, dim=15, classes=5, largest=2.0, smallest=0.5, n=4000)
    u, s, w, z = data.basis, data.scales, data.weights, data.latents("train")
    samples = data.load("train")
    assert np.allclose(u.T @ u, np.eye(6), atol=1e-14)
    assert np.allclose(s, [2.0, 1.7, 1.4, 1.1, 0.8, 0.5])
    x = samples.x[:].astype(float)
    assert np.allclose(x, (z * s) @ u.T, atol=1e-5)
    assert np.linalg.svd(u * s, compute_uv=False).max() == pytest.approx(2.0)  # ω(t) = 2 t
    seen = (w / s) @ u.T  # the classifier in the space of inputs
    scores = x @ seen.T
    assert (scores.argmax(1) == samples.y).mean() > 0.999  # but for rounding to float32
    rows = np.arange(len(x))
    others = np.array([[j for j in range(5) if j != y] for y in samples.y])
    difference = w[samples.y][:, None] - w[others]
    radius = ((difference * z[:, None]).sum(2) / np.linalg.norm(difference / s, axis=2)).min(1)
    direct = (scores[rows, samples.y][:, None] - np.take_along_axis(scores, others, 1)) / np.linalg.norm(
        seen[samples.y][:, None] - seen[others], axis=2
    )
    assert np.allclose(radius, direct.min(1), atol=1e-4)
    # Theorem 1, with the classes' frequencies: at least that share of radii is at most η.
    shares = np.bincount(samples.y, minlength=5) / len(x)
    a = stats.norm.ppf(1 - shares)
    for eta in (0.1, 0.3, 1.0):
        bound = (stats.norm.cdf(a + eta / 2) - stats.norm.cdf(a)).sum()
        assert (radius <= eta).mean() >= bound - 5 / np.sqrt(len(x))


def test_generators_that_cannot_be():
    with pytest.raises(ValueError, match="latent=5 is larger than dim=4"):
        LinearGenerator(latent=5, dim=4)
    with pytest.raises(ValueError, match="smallest=2 is larger than largest=1"):
        LinearGenerator(smallest=2.0)

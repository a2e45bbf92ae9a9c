import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robench.errors import DataError
from robench.loading import load_data
from robench.registry import load_plugins
from robench.testing import check_transform
from robench_plugins.datasets.digits import Digits
from robench_plugins.datasets.imbalance import Imbalance
from robench_plugins.datasets.noise_labels import NoiseLabels
from robench_plugins.datasets.subset import Subset

TRAIN, TEST = Digits().load("train"), Digits().load("test")
FRACTIONS = st.floats(0.001, 1.0)
SEEDS = st.integers(0, 2**63 - 1)


class Held:
    """The digits, read once."""

    def load(self, split):
        return {"train": TRAIN, "test": TEST}[split]


def thin(keep, *classes, seed=0):
    return Imbalance(classes, keep=keep, seed=seed).apply(Held())


def noisy(fraction, seed=0):
    return NoiseLabels(fraction, seed=seed).apply(Held())


@given(FRACTIONS, SEEDS)
def test_the_classes_that_are_named_lose_that_share_and_no_other_does(keep, seed):
    counts = np.bincount(thin(keep, "8", "3", seed=seed).load("train").y)
    before = np.bincount(TRAIN.y)
    for label in range(10):
        wanted = max(1, round(keep * before[label])) if label in (3, 8) else before[label]
        assert counts[label] == wanted


@given(FRACTIONS, FRACTIONS, SEEDS)
def test_fewer_are_contained_in_more(a, b, seed):
    few, many = (set(thin(keep, "8", seed=seed).load("train").index) for keep in sorted((a, b)))
    assert few <= many


def test_inputs_and_order_stay():
    some = thin(0.2, "8").load("train")
    positions = np.flatnonzero(np.isin(TRAIN.index, some.index))
    assert np.array_equal(some.index, TRAIN.index[positions])
    assert np.array_equal(some.x[:], TRAIN.x[positions]) and np.array_equal(some.y, TRAIN.y[positions])


def test_the_test_split_is_that_of_the_dataset():
    assert thin(0.1, "8").load("test").digest() == TEST.digest()
    assert noisy(0.5).load("test").digest() == TEST.digest()
    plugins = load_plugins()
    for chain in ("digits | imbalance:8,keep=0.1", "digits | noise-labels:0.3"):
        assert load_data(plugins.resolve("datasets", chain), "test").hash == TEST.digest()


@given(FRACTIONS, SEEDS)
def test_exactly_that_share_of_labels_is_wrong(fraction, seed):
    y = noisy(fraction, seed).load("train").y
    assert (y != TRAIN.y).sum() == round(fraction * len(TRAIN))
    assert y.min() >= 0 and y.max() <= 9


def test_a_share_of_no_sample_is_refused():
    with pytest.raises(DataError, match=r"noise-labels: 1e-06 of \d+ samples is none of them"):
        noisy(1e-6).load("train")


@given(FRACTIONS, FRACTIONS, SEEDS)
def test_more_noise_keeps_what_less_noise_did(a, b, seed):
    less, more = (noisy(fraction, seed).load("train").y for fraction in sorted((a, b)))
    changed = less != TRAIN.y
    assert np.array_equal(less[changed], more[changed])


def test_wrong_labels_are_uniform_over_the_other_classes():
    """χ² of the differences modulo 10 over 20 seeds: 8 degrees of freedom, 99.99 % below 31.8."""
    steps = np.concatenate([(noisy(1.0, seed).load("train").y - TRAIN.y) % 10 for seed in range(20)])
    counts = np.bincount(steps, minlength=10)
    assert counts[0] == 0
    expected = len(steps) / 9
    assert ((counts[1:] - expected) ** 2 / expected).sum() < 31.8


def test_noise_and_selection_are_drawn_apart():
    """The lowest ranks of one must not be those of the other: a subset of noisy data is as noisy as the whole."""
    part = Subset(n=400).apply(noisy(0.3)).load("train")
    clean = Subset(n=400).apply(Held()).load("train")
    assert 0.2 < (part.y != clean.y).mean() < 0.4
    kept = set(thin(0.5, *map(str, range(10))).load("train").index)
    assert 0.4 < np.mean([index in kept for index in clean.index]) < 0.6


def test_noise_in_a_subset_is_not_the_subset_of_the_noise():
    """The same indices with other labels: two identities."""
    plugins = load_plugins()
    within, of = (
        load_data(plugins.resolve("datasets", f"digits | {chain}"), "train")
        for chain in ("subset:n=100 | noise-labels:0.1", "noise-labels:0.1 | subset:n=100")
    )
    assert within.samples.index.tolist() == of.samples.index.tolist()
    assert (within.samples.y != TRAIN.y[np.isin(TRAIN.index, within.samples.index)]).sum() == 10
    assert within.samples.y.tolist() != of.samples.y.tolist()
    assert within.hash != of.hash and within.canonical != of.canonical


def test_selections_keep_the_identity_and_noise_makes_another():
    plugins = load_plugins()
    thinned = load_data(plugins.resolve("datasets", "digits | imbalance:8"), "train")
    assert (thinned.hash, thinned.canonical, thinned.selection) == (TRAIN.digest(), "digits", "imbalance:8")
    assert load_data(plugins.resolve("datasets", "digits | noise-labels:0.3"), "train").hash != TRAIN.digest()


@pytest.mark.parametrize("transform", [Imbalance(("a", "c")), NoiseLabels(0.5)])
def test_conforms(transform):
    check_transform(transform)


def test_what_is_refused():
    for classes in ((), ("8", "8")):
        with pytest.raises(ValueError, match="one class or more, each once"):
            Imbalance(classes)
    with pytest.raises(DataError, match="no class '11': choose from 0"):
        thin(0.5, "11").load("test")
    some = Imbalance(("8",), keep=0.5).apply(_Without(8))
    with pytest.raises(DataError, match="no training sample is of the class 8"):
        some.load("train")
    with pytest.raises(DataError, match="one class alone"):
        NoiseLabels(0.5).apply(_Single()).load("train")


class _Without:
    def __init__(self, label):
        self.label = label

    def load(self, split):
        return TRAIN.select(np.flatnonzero(TRAIN.y != self.label))


class _Single:
    def load(self, split):
        from dataclasses import replace

        return replace(TRAIN.select(np.flatnonzero(TRAIN.y == 0)), classes=("0",))

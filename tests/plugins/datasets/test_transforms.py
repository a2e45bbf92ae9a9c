import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robench.errors import DataError
from robench.samples import Samples
from robench.threat import Domain
from robench_plugins.datasets._draws import ranks
from robench_plugins.datasets.classes import Classes
from robench_plugins.datasets.digits import Digits
from robench_plugins.datasets.subset import Subset


class Fixed:
    def __init__(self, samples):
        self.samples = samples

    def load(self, split):
        return self.samples


TEST = Digits().load("test")
SOURCE = Fixed(TEST)


def subset(n, seed=0, source=SOURCE):
    return Subset(n=n, seed=seed).apply(source).load("test")


@given(st.integers(1, 449), st.integers(1, 449), st.integers(0, 2**63 - 1))
def test_a_smaller_subset_is_contained_in_a_larger_one(n, m, seed):
    small, large = sorted((n, m))
    few, many = subset(small, seed), subset(large, seed)
    assert len(few) == small
    assert set(few.index) <= set(many.index)


def test_a_subset_keeps_order_inputs_and_labels():
    part = subset(60)
    positions = [TEST.index.tolist().index(i) for i in part.index]
    assert positions == sorted(positions)
    assert np.array_equal(part.x[:], TEST.x[positions])
    assert np.array_equal(part.y, TEST.y[positions])
    assert Subset.selects and not Classes.selects


def test_seeds_choose_independently():
    """Two random halves of 450 share 112.5 on average, with standard deviation 5.3."""
    shared = [len(set(subset(225, a).index) & set(subset(225, b).index)) for a in range(8) for b in range(a)]
    assert abs(np.mean(shared) - 112.5) < 5
    assert max(abs(np.array(shared) - 112.5)) < 5 * 5.3


def test_every_sample_is_equally_likely():
    """χ² over samples of how often each is among the first 45, for 2,000 seeds: mean 449 · 0.9, within 5 deviations."""
    counts = np.zeros(450)
    for seed in range(2000):
        counts[np.argsort(ranks(np.arange(450), seed))[:45]] += 1
    chi2 = ((counts - 200) ** 2 / 200).sum() / 0.9
    assert abs(chi2 - 449) < 5 * np.sqrt(2 * 449)


def test_ranks_are_splitmix64():
    """Java's `SplittableRandom` with the start as its state, written out with Python's integers."""

    def mix(z):
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    gamma = 0x9E3779B97F4A7C15
    for seed in (0, 1, 2**63 - 1):
        start = mix((seed + 1) * gamma % 2**64)
        wanted = [mix((start + (i + 1) * gamma) % 2**64) for i in (0, 1, 5, 10**12)]
        assert ranks(np.array([0, 1, 5, 10**12]), seed).tolist() == wanted


def test_the_rank_of_a_sample_does_not_depend_on_the_others():
    odd = Fixed(TEST.select(np.arange(1, 450, 2)))
    assert set(subset(450).index) == set(TEST.index)
    many = set(subset(200).index)
    assert many & set(odd.samples.index) == set(subset(len(many & set(odd.samples.index)), source=odd).index)


def test_more_than_there_is_is_refused():
    with pytest.raises(DataError, match="n=451, but split test has 450 samples"):
        subset(451)


def keep(*classes, source=SOURCE):
    return Classes(keep=classes).apply(source).load("test")


def test_classes_are_relabelled_in_the_order_given():
    part = keep("7", "3")
    assert part.classes == ("7", "3")
    assert set(part.index) == set(TEST.index[(TEST.y == 3) | (TEST.y == 7)])
    original = dict(zip(TEST.index, TEST.y, strict=True))
    assert all(original[i] == (7, 3)[label] for i, label in zip(part.index, part.y, strict=True))
    assert np.array_equal(part.x[:], TEST.x[np.isin(TEST.y, [3, 7])])


def test_classes_by_name_come_before_labels():
    samples = Samples(np.eye(4), np.arange(4), np.arange(4), Domain(), ("cat", "3", "owl", "dog"))
    part = keep("3", "dog", "2", source=Fixed(samples))
    assert part.classes == ("3", "dog", "owl")
    assert part.index.tolist() == [1, 2, 3]
    assert part.y.tolist() == [0, 2, 1]


def test_another_choice_is_another_dataset():
    assert len({keep("3", "7").digest(), keep("7", "3").digest(), keep("3", "8").digest(), TEST.digest()}) == 4


def test_transforms_commute_where_they_should():
    """Ranks belong to samples: the 20 first of two classes are the same before and after relabelling."""
    both = keep("3", "7", source=Fixed(subset(300)))
    assert set(both.index) == set(subset(len(both), source=Fixed(keep("3", "7"))).index)


@pytest.mark.parametrize("classes", [(), ("3",), ("3", "3")])
def test_less_than_two_classes_are_refused(classes):
    with pytest.raises(ValueError, match="keep"):
        Classes(keep=classes)


def test_unknown_and_empty_classes():
    with pytest.raises(DataError, match="no class '11': choose from 0, 1"):
        keep("1", "11")
    with pytest.raises(DataError, match="once by name and once by label"):
        keep("dog", "0", source=Fixed(Samples(np.eye(2), np.arange(2), np.arange(2), Domain(), ("dog", "cat"))))
    with pytest.raises(DataError, match="no sample of split test is of the classes 3\\+7"):
        keep("3", "7", source=Fixed(TEST.select(np.flatnonzero(TEST.y == 1))))

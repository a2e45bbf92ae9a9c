"""Samples are lazy, checked, and have an identity."""

import numpy as np
import pytest

from robench.errors import DataError
from robench.samples import Samples
from robench.threat import Domain


def make(x=None, y=None, index=None, domain=None, classes=("a", "b")):
    x = np.linspace(0, 1, 24, dtype=np.float32).reshape(6, 4) if x is None else x
    y = np.array([0, 1] * 3) if y is None else y
    return Samples(x, y, np.arange(len(y)) if index is None else index, domain or Domain(), classes)


class Watched:
    """An array that remembers which rows were read."""

    def __init__(self, array):
        self.array, self.read = array, []
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        self.read.extend(np.arange(len(self.array))[rows].tolist())
        return self.array[rows]


def test_selection_reads_nothing_until_asked():
    source = Watched(np.random.default_rng(0).random((6, 4)))
    chosen = make(source).select([5, 3, 1]).select(slice(1, 3))
    assert source.read == []
    assert chosen.index.tolist() == [3, 1]
    assert np.array_equal(chosen.batch(0, 2), source.array[[3, 1]])
    assert source.read == [3, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.array([0, 1])}, "length"),
        ({"y": np.array([0, 1, 2, 0, 1, 0])}, "label 2 of sample 2"),
        ({"y": np.array([0, 1, -1, 0, 1, 0])}, "label -1 of sample 2"),
        ({"index": np.array([0, 1, 2, 3, 4, 4])}, "repeat"),
    ],
)
def test_bad_labels_and_indices(change, message):
    with pytest.raises(DataError, match=message):
        make(**{"x": np.zeros((6, 4)), **change})


@pytest.mark.parametrize("classes", [["a", "b"], ("a", "b"), np.array(["a", "b"])])
def test_class_names_may_be_any_sequence(classes):
    samples = make(classes=classes)
    assert samples.classes == ("a", "b")
    assert {type(name) for name in samples.select([1]).classes} == {str}


@pytest.mark.parametrize("classes", ["ab", [0, 1], None, 2])
def test_what_names_no_classes_is_refused(classes):
    with pytest.raises(DataError, match="a text for each label"):
        make(classes=classes)


@pytest.mark.parametrize("value", [1.5, -0.1, np.nan, np.inf])
def test_values_outside_the_domain_are_refused_by_name(value):
    x = np.zeros((6, 4))
    x[4, 2] = value
    samples = make(x, index=np.array([10, 11, 12, 13, 14, 15]))
    samples.batch(0, 4)
    with pytest.raises(DataError, match="sample 14 holds"):
        samples.batch(0, 6)


def test_unbounded_domains_take_any_finite_value():
    x = np.full((6, 4), 1e30)
    assert make(x, domain=Domain.unbounded()).batch(0, 6).shape == (6, 4)


def test_identity_covers_inputs_labels_indices_and_domain():
    base = make()
    assert make().digest() == base.digest()
    x = np.array(base.x)
    x[0, 0] = 0.5
    others = [
        make(x),
        make(y=np.array([1, 0] * 3)),
        make(index=np.arange(1, 7)),
        make(domain=Domain(0, 2)),
        make(np.array(base.x, dtype=np.float64)),
    ]
    assert len({one.digest() for one in (base, *others)}) == 6

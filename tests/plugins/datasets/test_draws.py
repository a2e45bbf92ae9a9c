import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robench_plugins.datasets import _draws
from robench_plugins.datasets._draws import fractions, lowest, normals, signs, subseed, total, words

INDEX = np.arange(4000)


def test_normals_are_standard_and_independent():
    z = normals(INDEX, 1, 25)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(z.T) - np.eye(25)).max() < 5 / np.sqrt(len(INDEX))
    assert abs(np.corrcoef((z**2).T) - np.eye(25)).max() < 5 / np.sqrt(len(INDEX))
    along = z[:-1, 0] * z[1:, 0]  # neighbouring samples
    assert abs(along.mean()) < 5 / np.sqrt(len(INDEX))


def test_normals_are_those_of_box_and_muller():
    """Against the library's functions, which this module does without."""
    u = fractions(INDEX, 5, 4)
    radius = np.sqrt(-2 * np.log1p(-u[:, ::2]))
    wanted = np.stack([radius * np.cos(2 * np.pi * u[:, 1::2]), radius * np.sin(2 * np.pi * u[:, 1::2])], 2)
    assert np.allclose(normals(INDEX, 5, 4), wanted.reshape(-1, 4), rtol=1e-13, atol=1e-14)


def test_logarithms_reach_into_the_tail():
    v = np.concatenate([2.0 ** -np.arange(54), np.linspace(2**-53, 1, 10001)])
    assert np.allclose(_draws._logarithm(v), np.log(v), rtol=1e-15, atol=1e-16)


def test_the_bits_are_these():
    """Data have a hash: whatever changes it changes every dataset that is made of these draws."""
    raw = normals(np.arange(100), 7, 9).tobytes() + signs(np.arange(100), 7, 9).tobytes()
    assert hashlib.sha256(raw).hexdigest() == "5b52d0c88bc18f6ae0efde61786a0a71775a7a87cc25dca4a75f3c6b91d77d40"


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 2**40), min_size=1, max_size=8), st.integers(1, 7))
def test_draws_belong_to_a_sample(seed, index, count):
    index = np.array(index)
    whole = words(index, seed, 9)
    assert np.array_equal(words(index[:1], seed, count), whole[:1, :count])
    assert np.array_equal(normals(index, seed, count)[-1:], normals(index[-1:], seed, count))


def test_signs_and_fractions_are_fair():
    assert abs(signs(INDEX, 0, 25).mean()) < 5 / np.sqrt(INDEX.size * 25)
    assert stats.kstest(fractions(INDEX, 0, 25).ravel(), "uniform").pvalue > 1e-3


def test_parts_of_a_seed_differ():
    parts = {subseed(seed, *what) for seed in (0, 1) for what in [("x",), ("y",), ("x", "y"), ("xy",), ("x", 1)]}
    assert len(parts) == 10 and all(0 <= part < 2**63 for part in parts)


def test_the_lowest_are_nested():
    assert set(lowest(INDEX, 3, 10)) < set(lowest(INDEX, 3, 11))


def test_sums_are_in_order():
    with pytest.warns(RuntimeWarning):
        assert np.isnan(total(np.array([[1e308, 1e308, -np.inf]])))
    assert total(np.array([[1.0, 1e16, -1e16]])) == 0

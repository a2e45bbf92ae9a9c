import hashlib
import json

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from robench.errors import DataError
from robench_plugins.datasets.digits import DIGESTS, THRESHOLDS, Digits


@pytest.fixture(scope="module")
def splits():
    return {name: Digits().load(name) for name in ("train", "test")}


def test_the_splits_are_scikit_learns(splits):
    y = load_digits().target
    train, test = train_test_split(np.arange(1797), test_size=450, stratify=y, random_state=0)
    assert splits["train"].index.tolist() == train.tolist()
    assert splits["test"].index.tolist() == test.tolist()
    assert (splits["test"].y == y[test]).all()


def test_inputs_are_the_exact_grey_levels(splits):
    for samples in splits.values():
        assert samples.x.dtype == np.float32
        assert samples.shape == (1, 8, 8)
        levels = np.asarray(samples.x) * 16
        assert (levels == load_digits().images[samples.index][:, None]).all()
        assert samples.classes == tuple("0123456789")


def test_hashes_are_the_documented_ones(splits):
    """Computed here from the arrays, in the form that `Samples.digest` documents."""
    for name, samples in splits.items():
        x = (load_digits().data[samples.index] / 16).astype("<f4").reshape(-1, 1, 8, 8)
        sha = hashlib.sha256(f"{x.shape}<f40.01.0".encode() + x.tobytes())
        sha.update(samples.y.astype("<i8").tobytes() + samples.index.astype("<i8").tobytes())
        assert sha.hexdigest() == DIGESTS[name]


@pytest.mark.parametrize(("norm", "order"), [("linf", np.inf), ("l2", 2), ("l1", 1)])
def test_headline_budgets_leave_room_for_a_perfect_classifier(splits, norm, order):
    x = np.concatenate([np.asarray(s.x) for s in splits.values()]).reshape(1797, 64)
    y = np.concatenate([s.y for s in splits.values()])
    nearest = min(np.linalg.norm(x[y != label] - point, order, axis=1).min() for point, label in zip(x, y, strict=True))
    assert all(float(eps) < nearest / 2 for eps in THRESHOLDS[norm])


def test_an_unknown_split_is_refused():
    with pytest.raises(DataError, match="no split 'val': choose train or test"):
        Digits().load("val")


def test_an_altered_index_file_is_refused(monkeypatch, tmp_path):
    altered = {"train": list(range(1347)), "test": list(range(1347, 1797))}
    (tmp_path / "digits_split.json").write_text(json.dumps(altered))
    monkeypatch.setattr("robench_plugins.datasets.digits.files", lambda package: tmp_path)
    with pytest.raises(DataError, match="install robench again"):
        Digits().load("test")

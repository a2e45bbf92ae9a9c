import hashlib

import numpy as np
import pytest
from scipy.io import savemat

from robench.errors import DataError
from robench.testing import check_dataset
from robench_plugins.datasets import svhn
from robench_plugins.datasets.svhn import THRESHOLDS, Svhn

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (32, 32, 3, 6), np.uint8)  # as published: height, width, channels, image
Y = np.array([[10], [1], [9], [10], [5], [2]], np.uint8)


def write(folder, monkeypatch, split="test", x=X, y=Y, **more):
    """A file of that name, whose md5 sum is then the published one."""
    path = folder / f"{split}_32x32.mat"
    savemat(path, {"X": x, "y": y, **more}, do_compression=True)
    monkeypatch.setitem(svhn._MD5, split, hashlib.md5(path.read_bytes()).hexdigest())
    return path


def test_loads_what_the_file_holds(tmp_path, monkeypatch):
    write(tmp_path, monkeypatch)
    samples = Svhn(tmp_path).load("test")
    assert samples.shape == (3, 32, 32) and samples.x.dtype == samples.x[1:3].dtype == np.float32
    for image in range(6):
        for channel in range(3):
            assert np.array_equal(
                samples.x[image : image + 1][0, channel], (X[:, :, channel, image] / 255).astype("f4")
            )
    assert samples.y.tolist() == [0, 1, 9, 0, 5, 2] and samples.y.dtype == np.int64
    assert samples.classes == tuple("0123456789") and samples.thresholds == THRESHOLDS


def test_splits_are_different_files(tmp_path, monkeypatch):
    write(tmp_path / ".", monkeypatch, "train", X[..., :2], Y[:2])
    write(tmp_path, monkeypatch)
    assert (len(Svhn(tmp_path).load("train")), len(Svhn(tmp_path).load("test"))) == (2, 6)
    with pytest.raises(DataError, match="no split 'extra': choose train or test"):
        Svhn(tmp_path).load("extra")


def test_conforms(tmp_path, monkeypatch):
    write(tmp_path, monkeypatch)
    write(tmp_path, monkeypatch, "train", X[..., :4], Y[:4])
    check_dataset(Svhn(tmp_path))


def test_nothing_but_the_published_bytes_reaches_the_reader(tmp_path, monkeypatch):
    path = write(tmp_path, monkeypatch)
    monkeypatch.setattr("scipy.io.loadmat", lambda *_, **__: pytest.fail("read before it was known"))
    whole = path.read_bytes()
    for raw in (whole[:-1], whole + b"\0", b"", whole[:300] + bytes([whole[300] ^ 1]) + whole[301:]):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"test_32x32\.mat is not the published file, or damaged \(md5"):
            Svhn(tmp_path).load("test")


def test_what_to_do_where_it_is_absent(tmp_path, monkeypatch):
    monkeypatch.delenv("ROBENCH_DATA", raising=False)
    with pytest.raises(DataError, match=r"put train_32x32\.mat and test_32x32\.mat .* into a folder svhn"):
        Svhn().load("test")
    monkeypatch.setenv("ROBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"svhn: no train_32x32\.mat in '.*svhn'"):
        Svhn().load("train")

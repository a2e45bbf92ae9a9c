import os
import struct
import zipfile

import numpy as np
import pytest

from robench.errors import DataError
from robench_plugins.datasets import _members
from robench_plugins.datasets._members import Rows
from robench_plugins.datasets.npz import Npz

RNG = np.random.default_rng(0)
X = RNG.random((23, 2, 3), np.float32)
Y = np.arange(23) % 4


def save(path, compressed=False, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return Npz(path)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("in_memory", [True, False])
def test_loads_what_was_saved(tmp_path, monkeypatch, compressed, in_memory):
    monkeypatch.setattr(_members, "_IN_MEMORY", 1 << 20 if in_memory else 0)
    samples = save(tmp_path / "a.npz", compressed, y=Y, x=X).load("test")
    assert samples.shape == (2, 3)
    assert samples.classes == ("0", "1", "2", "3")
    assert (samples.domain.lower, samples.domain.upper) == (0.0, 1.0)
    assert (samples.y == Y).all()
    assert samples.index.tolist() == list(range(23))
    for rows in (
        slice(None),
        slice(3, 9),
        slice(20, 40),
        slice(9, 2, -3),
        slice(5, 5),
        np.array([7, 0, 1, 2, 22, 7]),
        4,
    ):
        assert np.array_equal(samples.x[rows], X[rows])
    assert isinstance(samples.x, Rows) == (not compressed or not in_memory)


def test_stored_inputs_stay_in_the_file(tmp_path):
    """128 MiB of inputs, of which no more than a block is in memory at a time."""
    import tracemalloc

    x = np.zeros((2048, 1 << 14), np.float32)
    x[1234, 567] = 0.75
    data = save(tmp_path / "big.npz", x=x, y=np.arange(2048) % 2)
    del x
    tracemalloc.start()
    samples = data.load("test")
    assert samples.x[1234][567] == 0.75
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80 << 20


def test_a_fortran_ordered_array(tmp_path):
    samples = save(tmp_path / "a.npz", x=np.asfortranarray(X), y=Y).load("test")
    assert np.array_equal(samples.x[2:5], X[2:5])


def test_the_digest_does_not_depend_on_how_the_file_was_written(tmp_path):
    digests = {
        save(tmp_path / f"{number}.npz", number % 2 == 0, x=x, y=Y).load("test").digest()
        for number, x in enumerate([X, X, X.astype(">f4"), np.asfortranarray(X)])
    }
    assert len(digests) == 1


def test_splits_by_name(tmp_path):
    data = save(tmp_path / "a.npz", x_train=X, y_train=Y, x_test=X[:5], y_test=Y[:5])
    assert len(data.load("train")) == 23
    assert len(data.load("test")) == 5
    assert data.load("test").classes == ("0", "1", "2", "3")
    with pytest.raises(DataError, match="no split 'val': it has train and test"):
        data.load("val")


def test_domain_and_class_names(tmp_path):
    names = ["cat", "dog", "owl", "émeu", "unused"]
    samples = save(tmp_path / "a.npz", x=X * 2 - 1, y=Y, domain=[-1, 1], classes=names).load("test")
    assert (samples.domain.lower, samples.domain.upper) == (-1.0, 1.0)
    assert samples.classes == tuple(names)
    open_side = save(tmp_path / "b.npz", x=X * 1e9, y=Y, domain=[0, np.inf]).load("test")
    assert open_side.domain.upper == np.inf


def test_small_integers_become_float32(tmp_path):
    pixels = RNG.integers(0, 256, (6, 1, 2, 2), np.uint8)
    samples = save(tmp_path / "a.npz", x=pixels, y=[0, 1, 0, 1, 0, 1], domain=[0, 255]).load("test")
    assert samples.x.dtype == samples.x[0:2].dtype == np.float32
    assert np.array_equal(samples.x[:], pixels)


REFUSED = {
    "neither": ({"a": X, "b": Y}, "no arrays x and y"),
    "no labels": ({"x": X}, "has x but no y"),
    "no inputs": ({"y": Y}, "has y but no x"),
    "half a split": ({"x": X, "y": Y, "x_train": X}, "has x_train but no y_train"),
    "two tests": ({"x": X, "y": Y, "x_test": X, "y_test": Y}, "both x and x_test"),
    "lengths": ({"x": X, "y": Y[:-1]}, "23 rows of x but 22 of y"),
    "scalar inputs": ({"x": X[:, 0, 0], "y": Y}, r"shape \(23,\)"),
    "no features": ({"x": X[:, :0], "y": Y}, r"shape \(23, 0, 3\)"),
    "empty": ({"x": X[:0], "y": Y[:0]}, "is empty"),
    "one-hot labels": ({"x": X, "y": np.eye(4)[Y]}, r"shape \(23, 4\): labels are one integer per sample"),
    "float labels": ({"x": X, "y": Y.astype(float)}, "dtype float64: labels are integers"),
    "negative labels": ({"x": X, "y": Y - 1}, "the label -1"),
    "huge labels": ({"x": X, "y": np.full(23, 2**63, np.uint64)}, "the label 9223372036854775808"),
    "objects": ({"x": np.array([X, None], object), "y": Y[:2]}, "pickled objects, which are never loaded"),
    "object labels": ({"x": X, "y": Y.astype(object)}, "pickled objects"),
    "complex": ({"x": X.astype(complex), "y": Y}, "dtype complex128"),
    "text": ({"x": X.astype(str), "y": Y}, "dtype <U"),
    "records": ({"x": np.zeros(3, [("a", "f4")]), "y": Y[:3]}, "save floats, integers"),
    "outside": ({"x": X * 2, "y": Y}, r"outside the domain \[0, 1\]: rescale"),
    "integers outside": ({"x": np.full((2, 3), 255, np.uint8), "y": Y[:2]}, r"row 0 of x in .* holds 255, outside"),
    "bad domain": ({"x": X, "y": Y, "domain": [1, 0]}, "domain in .* is empty"),
    "nan domain": ({"x": X, "y": Y, "domain": [np.nan, 1]}, "domain in .* is empty"),
    "domain shape": ({"x": X, "y": Y, "domain": 1.0}, r"save \[lower, upper\]"),
    "few classes": ({"x": X, "y": Y, "classes": ["a", "b"]}, "2 names, but there is a label 3"),
    "same classes": ({"x": X, "y": Y, "classes": list("abca")}, "repeats a name"),
    "number classes": ({"x": X, "y": Y, "classes": [1, 2, 3, 4]}, "save a list of strings"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tmp_path, case):
    arrays, message = REFUSED[case]
    with pytest.raises(DataError, match=message) as caught:
        save(tmp_path / "a.npz", **arrays).load("test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_found_wherever_they_are(tmp_path, monkeypatch, value):
    monkeypatch.setattr("robench_plugins.datasets.npz._BLOCK", 100)
    x = X.copy()
    x[17, 1, 2] = value
    with pytest.raises(DataError, match=rf"row 17 of x in .* holds {value}: inputs are finite"):
        save(tmp_path / "a.npz", x=x, y=Y).load("test")


def test_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    for name in ("x", "y", "domain", "classes"):
        arrays = {"x": X, "y": Y, name: np.array([Trap()], object)}
        with pytest.raises(DataError, match="never loaded"):
            save(tmp_path / "a.npz", **arrays).load("test")
    assert not (tmp_path / "sprung").exists()


def test_files_that_are_not_there_or_not_npz(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        Npz(tmp_path / "none.npz").load("test")
    for name, content in {"empty": b"", "text": b"x,y\n0,1\n", "npy": b"\x93NUMPY\x01\x00"}.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"not an \.npz file"):
            Npz(path).load("test")
    with pytest.raises(DataError, match="cannot be read"):
        Npz(tmp_path).load("test")


@pytest.mark.parametrize("compressed", [False, True])
def test_every_truncation_is_refused(tmp_path, compressed):
    path = tmp_path / "a.npz"
    save(path, compressed, x=X, y=Y)
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError):
            Npz(path).load("test")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_flipped_bit_is_found_by_the_checksum(tmp_path, compressed):
    path = tmp_path / "a.npz"
    save(path, compressed, x=X, y=Y)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("x.npy")
    whole = bytearray(path.read_bytes())
    whole[info.header_offset + 64 + info.compress_size // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DataError, match="damaged"):
        Npz(path).load("test")


def test_a_header_that_announces_more_than_there_is(tmp_path):
    path = tmp_path / "a.npz"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }"
    header = header.ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 24)
        archive.writestr("y.npy", b"nonsense")
    with pytest.raises(DataError, match=r"y in .* is not a NumPy array"):
        Npz(path).load("test")
    with pytest.raises(DataError, match="does not fit its 24 bytes"):
        _members.Archive(path).rows("x")


@pytest.mark.parametrize("bound", ["_SMALL", "_TURNED"])
def test_what_is_read_whole_is_bounded_before_it_is_unpacked(tmp_path, monkeypatch, bound):
    """Zeros of a thousandth of their size in the file."""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros((4, 50_000), np.float32, order="F"), y=np.zeros(50_000, np.int64))
    monkeypatch.setattr(_members, bound, 300_000)
    monkeypatch.setattr(_members.Archive, "_read", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(DataError, match=r"has \d+ bytes, and at most 300000 are read whole"):
        archive = _members.Archive(path)
        archive.array("y") if bound == "_SMALL" else archive.rows("x")


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "a.npz"
    samples = save(path, x=X, y=Y).load("test")
    os.truncate(path, 300)
    with pytest.raises(DataError, match="became shorter"):
        samples.x[10:]

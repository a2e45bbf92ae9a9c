import hashlib
import os
import pickle
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robench.errors import DataError
from robench.registry import load_plugins
from robench_plugins.datasets import cifar
from robench_plugins.datasets._batches import read_batch
from robench_plugins.datasets.cifar import THRESHOLDS, Cifar10, Cifar100

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (4, 32, 32, 3), np.uint8)
Y = [3, 9, 0, 7]
PLANES = X.transpose(0, 3, 1, 2).reshape(4, -1)  # red, then green, then blue, row by row
FLOATS = (X.transpose(0, 3, 1, 2) / 255).astype(np.float32)


@pytest.fixture(autouse=True)
def four_images(monkeypatch):
    """Files of four images instead of ten or fifty thousand."""
    for layout in (cifar._CIFAR10, cifar._CIFAR100):
        for split in ("train", "test"):
            monkeypatch.setitem(layout.rows, split, 4)


def records(y=Y, coarse=None, planes=PLANES):
    """The binary version: labels, the coarse one first, then the three planes."""
    lead = [bytes([c, f]) for c, f in zip(coarse, y, strict=True)] if coarse else [bytes([f]) for f in y]
    return b"".join(label + row.tobytes() for label, row in zip(lead, planes, strict=True))


def text(value):
    return b"U" + bytes([len(value)]) + value.encode()


def number(value):
    return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)


def batch(
    y=Y, key="labels", planes=PLANES, dtype="u1", names=(b"numpy.core.multiarray\n_reconstruct", b"numpy\ndtype")
):
    """What Python 2's cPickle writes of such a dictionary (protocol 2), instruction by instruction."""
    raw, (rows, size) = planes.tobytes(), planes.shape
    array = (
        b"c" + names[0] + b"\nq\x06cnumpy\nndarray\nq\x07K\x00\x85q\x08U\x01bq\x09\x87q\x0aRq\x0b"
        b"(K\x01" + number(rows) + number(size) + b"\x86q\x0cc" + names[1] + b"\nq\x0d" + text(dtype)
    ) + (
        b"q\x0eK\x00K\x01\x87q\x0fRq\x10(K\x03U\x01|q\x11NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x12b\x89"
        b"T" + struct.pack("<I", len(raw)) + raw + b"q\x13tq\x14b"
    )
    labels = b"]q\x05(" + b"".join(map(number, y)) + b"e"
    files = b"]q\x16(" + b"".join(text(f"image_{i}.png") + b"q" + bytes([32 + i]) for i in range(rows)) + b"e"
    items = [text("batch_label") + b"q\x02" + text("training batch 1 of 5") + b"q\x03", text(key) + b"q\x04" + labels]
    items += [text("data") + b"q\x15" + array, text("filenames") + b"q\x17" + files]
    return b"\x80\x02}q\x01(" + b"".join(items) + b"u."


def write_python(folder, monkeypatch, **files):
    """Batches, whose md5 sums are then the published ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
        for layout in (cifar._CIFAR10, cifar._CIFAR100):
            for sums in layout.python.values():
                if name in sums:
                    monkeypatch.setitem(sums, name, hashlib.md5(raw).hexdigest())


def same(samples, x=FLOATS, y=Y):
    assert samples.shape == (3, 32, 32) and samples.x.dtype == np.float32
    assert np.array_equal(samples.x[:], x) and np.array_equal(samples.x[np.array([1, 0])], x[[1, 0]])
    assert np.array_equal(samples.x[1], x[1])
    assert samples.y.tolist() == list(y) and samples.index.tolist() == list(range(len(y)))
    assert samples.thresholds == THRESHOLDS and samples.domain.upper == 1.0


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-bin"])
def test_the_binary_version(tmp_path, inside):
    (tmp_path / inside).mkdir(exist_ok=True)
    (tmp_path / inside / "test_batch.bin").write_bytes(records())
    same(Cifar10(tmp_path).load("test"))
    for part in range(1, 6):
        (tmp_path / inside / f"data_batch_{part}.bin").write_bytes(records(y=[part] * 4))
    assert Cifar10(tmp_path).load("train").y.tolist() == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4


def test_the_hundred_classes_are_the_fine_ones(tmp_path):
    (tmp_path / "test.bin").write_bytes(records(y=[99, 0, 5, 50], coarse=[19, 0, 1, 2]))
    samples = Cifar100(tmp_path).load("test")
    same(samples, y=[99, 0, 5, 50])
    assert len(samples.classes) == 100 and list(samples.classes) == sorted(set(samples.classes))
    assert (samples.classes[0], samples.classes[99], samples.classes[50]) == ("apple", "worm", "mouse")


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-py"])
def test_the_python_version(tmp_path, monkeypatch, inside):
    write_python(tmp_path / inside, monkeypatch, test_batch=batch())
    same(Cifar10(tmp_path).load("test"))


def test_the_python_version_of_the_hundred_classes(tmp_path, monkeypatch):
    write_python(tmp_path / "cifar-100-python", monkeypatch, train=batch(key="fine_labels"), test=batch(key="labels"))
    same(Cifar100(tmp_path).load("train"))
    with pytest.raises(DataError, match="damaged or truncated"):
        Cifar100(tmp_path).load("test")


@pytest.mark.parametrize("variant", ["rows first", "columns first", "long sizes"])
def test_the_reader_reads_what_pickle_would(tmp_path, variant):
    """Python's own unpickler, which runs whatever a file says, about a file that says nothing bad."""
    raw = {
        "rows first": batch(),
        "columns first": batch().replace(b"tq\x12b\x89T", b"tq\x12b\x88T"),
        "long sizes": batch().replace(b"M\x00\x0c", b"\x8a\x02\x00\x0c"),
    }[variant]
    (tmp_path / "batch").write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = pickle.loads(raw, encoding="latin1")
    data, labels = read_batch(tmp_path / "batch", 4, 3072, "labels")
    assert np.array_equal(data, wanted["data"]) and labels.tolist() == wanted["labels"] == Y
    assert (variant == "columns first") != np.array_equal(data, PLANES)
    assert data.dtype == np.uint8


class Trap:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


HOSTILE = {
    "another global": (batch(names=(b"os\nsystem", b"numpy\ndtype")), "it names 'os system'"),
    "a global in its place": (batch(names=(b"numpy\ndtype", b"numpy\ndtype")), "data is no NumPy array"),
    "another type": (batch(dtype="i8"), "data is no plain array of bytes"),
    "an order that is none": (batch().replace(b"tq\x12b\x89T", b"tq\x12bNT"), "data is no plain array of bytes"),
    "another version": (batch().replace(b"Rq\x0b(K\x01", b"Rq\x0b(K\x02"), "data is no plain array of bytes"),
    "another shape": (batch(planes=PLANES[:, :1024]), r"not of the shape \(4, 3072\)"),
    "fewer labels": (batch(y=Y[:3]), "labels is no list of 4 integers"),
    "text as labels": (batch().replace(b"K\x03K\x09K\x00K\x07e", b"K\x03K\x09K\x00Ne"), "labels is no list of 4"),
    "a later protocol": (pickle.dumps({"data": 1}, 4), "holds the instruction FRAME"),
    "text of Python 3": (pickle.dumps({"data": 1}, 2), "holds the instruction BINUNICODE"),
    "no dictionary": (b"\x80\x02K\x01.", "holds no dictionary"),
    "keys that are no texts": (b"\x80\x02}(K\x00K\x01u.", "keys are no texts"),
    "deep keys": (b"\x80\x02}(K\x00" + b"\x85" * 100_000 + b"K\x01u.", "keys are no texts"),
    "itself": (b"\x80\x02]q\x01(h\x01e}(U\x04datah\x01u.", "holds no dictionary"),
    "a list within itself": (b"\x80\x02}(U\x04data]q\x01(h\x01eu.", "no NumPy array|damaged"),
    "the instruction INST": (b"(ios\nsystem\n.", "holds the instruction INST"),
    "the instruction OBJ": (b"\x80\x02(cnumpy\ndtype\no.", "holds the instruction OBJ"),
    "the instruction NEWOBJ": (b"\x80\x02cnumpy\ndtype\n)\x81.", "holds the instruction"),
    "an extension": (b"\x80\x02\x82\x01.", "holds the instruction EXT1"),
    "a persistent identifier": (b"Pfile\n.", "holds the instruction PERSID"),
    "nothing": (b"", "damaged or truncated"),
    "no stop": (b"\x80\x02}", "damaged or truncated"),
    "an empty stack": (b"\x80\x02R.", "damaged or truncated"),
    "no mark": (b"\x80\x02K\x01t.", "damaged or truncated"),
    "a memory that is not there": (b"\x80\x02h\x05.", "damaged or truncated"),
    "a label of no word": (
        batch().replace(b"K\x03K\x09K\x00K\x07e", b"\x8a\x09" + b"\x7f" * 9 + b"K\x09K\x00K\x07e"),
        "damaged",
    ),
    "a negative length": (b"\x80\x02T\xff\xff\xff\xff.", "damaged or truncated"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_other_pickles_are_refused(tmp_path, case):
    raw, reason = HOSTILE[case]
    (tmp_path / "batch").write_bytes(raw)
    with pytest.raises(DataError, match=reason) as caught:
        read_batch(tmp_path / "batch", 4, 3072, "labels")
    assert "\n" not in str(caught.value) and str(tmp_path / "batch") in str(caught.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_in_a_pickle_runs(tmp_path, protocol):
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": Trap(tmp_path / "sprung"), "labels": Y}, protocol))
    with pytest.raises(DataError):
        read_batch(tmp_path / "batch", 4, 3072, "labels")
    assert not (tmp_path / "sprung").exists()


@settings(deadline=None)
@given(st.data())
def test_a_damaged_batch_is_read_or_refused(tmp_path_factory, data):
    raw = bytearray(batch(planes=PLANES[:, :3], y=Y))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    path = tmp_path_factory.mktemp("damaged") / "batch"
    path.write_bytes(raw)
    try:
        found, labels = read_batch(path, 4, 3, "labels")
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert found.shape == (4, 3) and found.dtype == np.uint8 and labels.shape == (4,)


def test_the_published_bytes_or_none(tmp_path, monkeypatch):
    write_python(tmp_path, monkeypatch, test_batch=batch())
    raw = bytearray(batch())
    raw[2000] ^= 1  # a pixel
    (tmp_path / "test_batch").write_bytes(raw)
    with pytest.raises(DataError, match=r"not the published file, or damaged \(md5 [0-9a-f]{32}, published"):
        Cifar10(tmp_path).load("test")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (records()[:-1], "has 12291 bytes, but the published file has 12292"),
        (records()[: 2 * 3073], "has 6146 bytes, but the published file has 12292"),
        (records() + b"\0", "is longer, but the published file has 12292"),
        (b"", "has 0 bytes"),
        (records(y=[3, 10, 0, 7]), "image 1 has the label 10, but there are 0 to 9"),
        (records(coarse=Y), "is longer"),
    ],
)
def test_binary_files_that_are_none(tmp_path, raw, reason):
    (tmp_path / "test_batch.bin").write_bytes(raw)
    with pytest.raises(DataError, match=reason):
        Cifar10(tmp_path).load("test")


def test_a_batch_that_is_missing(tmp_path):
    for part in (1, 2, 4, 5):
        (tmp_path / f"data_batch_{part}.bin").write_bytes(records())
    with pytest.raises(DataError, match=r"no data_batch_3\.bin in .* beside data_batch_1\.bin"):
        Cifar10(tmp_path).load("train")


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_files_for_a_split(tmp_path, compressed):
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "test2.npz", x=X[:2], y=np.array(Y[:2], np.uint8))
    save(tmp_path / "train4.npz", x=X, y=Y)
    same(Cifar10(tmp_path).load("train"))
    same(Cifar10(tmp_path).load("test"), FLOATS[:2], Y[:2])
    assert Cifar100(tmp_path).load("train").classes[9] == "bottle"


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x": X}, "no array y"),
        ({"y": Y}, "no array x"),
        ({"x": X / 255, "y": Y}, r"float64 \[4, 32, 32, 3\]: save bytes"),
        ({"x": X.transpose(0, 3, 1, 2), "y": Y}, r"uint8 \[4, 3, 32, 32\]: save bytes"),
        ({"x": X, "y": Y[:3]}, "holds 3 labels for 4 images"),
        ({"x": X, "y": [3, 9, 0, 10]}, "the label 10: there are the labels 0 to 9"),
        ({"x": X, "y": [3, 9, 0, -1]}, "the label -1: there are the labels 0 to 9"),
        ({"x": X, "y": [0.5, 1, 2, 3]}, "save one integer for each image"),
        ({"x": X[:0], "y": np.zeros(0, int)}, "save one integer for each image"),
    ],
)
def test_npz_files_that_are_none(tmp_path, arrays, reason):
    np.savez(tmp_path / "test.npz", **arrays)
    with pytest.raises(DataError, match=reason):
        Cifar10(tmp_path).load("test")


def test_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delenv("ROBENCH_DATA", raising=False)
    with pytest.raises(DataError, match=r"ROBENCH_DATA is not set: put the binary or the Python version .*CIFAR10"):
        Cifar10().load("test")
    monkeypatch.setenv("ROBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"cifar100: no files of split train in .* into a folder cifar100"):
        Cifar100().load("train")
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "test_batch.bin").write_bytes(records())
    same(Cifar10().load("test"))
    with pytest.raises(DataError, match="no split 'val': choose train or test"):
        Cifar10().load("val")
    for name in ("train.npz", "train2.npz"):
        np.savez(tmp_path / "cifar10" / name, x=X, y=Y)
    with pytest.raises(DataError, match=r"train\.npz and train2\.npz are both for split train"):
        Cifar10().load("train")


def test_images_are_read_from_the_file_when_they_are_asked_for(tmp_path):
    import tracemalloc

    np.savez(tmp_path / "test.npz", x=np.zeros((20_000, 32, 32, 3), np.uint8), y=np.zeros(20_000, np.uint8))
    tracemalloc.start()
    samples = Cifar10(tmp_path).load("test")
    samples.batch(0, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000 * 3072  # as bytes: 1, as floats: 4


@pytest.mark.data
def test_the_images_at_hand(data_folder, monkeypatch):
    """The first ten labels of both splits, as everybody's tutorial prints them; specs name no path."""
    monkeypatch.setenv("ROBENCH_DATA", str(data_folder))
    train, test = (load_plugins().resolve("datasets", "cifar10").value.load(split) for split in ("train", "test"))
    assert train.y[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert test.y[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    # Channel means of the whole training set, as they are used for normalisation; of 10,000 images here.
    assert np.allclose(train.x[:].mean((0, 2, 3)), [0.4914, 0.4822, 0.4465], atol=0.005)

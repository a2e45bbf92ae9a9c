import gzip
import hashlib
import struct

import numpy as np
import pytest

from robench.errors import DataError
from robench.registry import load_plugins
from robench_plugins.datasets.mnist import FASHION_THRESHOLDS, ORIGINAL_TEST, THRESHOLDS, FashionMnist, Mnist

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 28, 28), np.uint8)
LABELS = np.array([0, 9, 3, 3, 1, 8, 4], np.uint8)


def images(x=IMAGES, magic=2051, shape=None):
    return struct.pack(">4I", magic, *(shape or x.shape)) + x.tobytes()


def labels(y=LABELS, magic=2049, count=None):
    return struct.pack(">2I", magic, count or len(y)) + y.tobytes()


def write(folder, x=None, y=None, name="t10k", suffix=""):
    """Files of a split, as given or right ones."""
    folder.mkdir(exist_ok=True)
    for kind, raw in (("images-idx3", images() if x is None else x), ("labels-idx1", labels() if y is None else y)):
        (folder / f"{name}-{kind}-ubyte{suffix}").write_bytes(gzip.compress(raw) if suffix else raw)
    return Mnist(folder)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_loads_what_the_files_hold(tmp_path, suffix):
    samples = write(tmp_path, suffix=suffix).load("test")
    assert samples.shape == (1, 28, 28)
    assert samples.x.dtype == samples.x[2:4].dtype == np.float32
    # The float32 number nearest to k/255.
    assert np.array_equal(samples.x[:], (IMAGES[:, None] / 255).astype(np.float32))
    assert np.array_equal(samples.x[np.array([5, 0])], samples.x[:][[5, 0]])
    assert samples.y.tolist() == LABELS.tolist() and samples.y.dtype == np.int64
    assert samples.index.tolist() == list(range(7))
    assert (samples.domain.lower, samples.domain.upper) == (0.0, 1.0)
    assert samples.classes == tuple("0123456789")
    assert samples.thresholds == THRESHOLDS


def test_splits_are_different_files(tmp_path):
    write(tmp_path, images(IMAGES[:2]), labels(LABELS[:2]), "train")
    data = write(tmp_path)
    assert (len(data.load("train")), len(data.load("test"))) == (2, 7)
    with pytest.raises(DataError, match="no split 'val': choose train or test"):
        data.load("val")


def test_packed_or_not_and_by_any_path_it_is_the_same_dataset(tmp_path):
    first, second = write(tmp_path / "a"), write(tmp_path / "b", suffix=".gz")
    (tmp_path / "c").mkdir()
    for kind in ("images-idx3", "labels-idx1"):
        raw = (tmp_path / "a" / f"t10k-{kind}-ubyte").read_bytes()
        (tmp_path / "c" / f"t10k-{kind}-ubyte".replace("-idx", ".idx")).write_bytes(raw)
    assert len({data.load("test").digest() for data in (first, second, Mnist(tmp_path / "c"))}) == 1


def test_pixels_stay_bytes_until_they_are_read(tmp_path):
    import tracemalloc

    data = write(tmp_path, images(np.zeros((20_000, 28, 28), np.uint8)), labels(np.zeros(20_000, np.uint8)))
    tracemalloc.start()
    samples = data.load("test")
    samples.batch(0, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.2 * 20_000 * 784  # as floats: 4


REFUSED = {
    "labels for images": ({"x": labels()}, "not an idx file of images: it starts with 00 00 08 01"),
    "images for labels": ({"y": images()}, "not an idx file of labels: it starts with 00 00 08 03"),
    "floats": ({"x": images(magic=0x0D03)}, "it starts with 00 00 0d 03"),
    "empty": ({"x": b""}, "it starts with nothing"),
    "half a header": ({"x": images()[:9]}, "ends within its header"),
    "size": ({"x": images(IMAGES[:, :27])}, "holds images of 27 × 28 pixels, not 28 × 28"),
    "truncated": ({"x": images()[:-1]}, "announces 7 entries but ends before them"),
    "oversize": ({"x": images() + b"\0"}, "goes on after the 7 entries"),
    "no entries": ({"x": images(IMAGES[:0])}, "announces 0 entries"),
    "impossible": ({"x": images(shape=(2**32 - 1, 28, 28))}, "announces 4294967295 entries: that is no such file"),
    "large": ({"x": images(shape=(10**6, 28, 28))}, "announces 1000000 entries but ends before them"),
    "counts": ({"y": labels(LABELS[:-1])}, "holds 6 labels for 7 images"),
    "label": ({"y": labels(LABELS + 1)}, "holds the label 10"),
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case, suffix):
    parts, reason = REFUSED[case]
    with pytest.raises(DataError, match=reason) as caught:
        write(tmp_path, **parts, suffix=suffix).load("test")
    assert "\n" not in str(caught.value)


def test_damaged_archives_are_refused(tmp_path):
    data = write(tmp_path, suffix=".gz")
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for raw in (whole[:-200], whole[:-4] + bytes(4), whole[:60] + b"\xff" * 40 + whole[100:], b"\x1f\x8b", b"idx"):
        file.write_bytes(raw)
        with pytest.raises(DataError, match="is damaged or truncated"):
            data.load("test")


def test_an_archive_that_unpacks_to_more_than_it_announces_is_not_unpacked(tmp_path):
    import tracemalloc

    data = write(tmp_path, suffix=".gz")
    with gzip.open(tmp_path / "t10k-images-idx3-ubyte.gz", "wb", 1) as file:
        file.write(images())
        for _ in range(256):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(DataError, match="goes on after"):
        data.load("test")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_found_where_robench_data_points(tmp_path, monkeypatch):
    write(tmp_path / "mnist", suffix=".gz")
    monkeypatch.setenv("ROBENCH_DATA", str(tmp_path))
    assert len(Mnist().load("test")) == 7


@pytest.mark.parametrize("given", [None, "", "somewhere"])
def test_what_to_do_where_it_is_absent(tmp_path, monkeypatch, given):
    monkeypatch.delenv("ROBENCH_DATA", raising=False)
    if given is not None:
        monkeypatch.setenv("ROBENCH_DATA", given and str(tmp_path / given))
    with pytest.raises(DataError, match=r"put train- and t10k-images.* into a folder mnist") as caught:
        Mnist().load("test")
    assert "\n" not in str(caught.value)


def test_specs_name_content_and_no_path(tmp_path):
    write(tmp_path / "digits")
    plugins = load_plugins()
    assert plugins.resolve("datasets", "mnist").canonical == "mnist"
    spec = plugins.resolve("datasets", f"mnist:{tmp_path / 'digits'}").canonical
    assert plugins.resolve("datasets", f"mnist:folder={tmp_path / 'digits'}").canonical == spec
    assert spec.startswith("mnist:digits@sha256:") and str(tmp_path) not in spec
    assert len(plugins.resolve("datasets", spec, search=[tmp_path]).value.load("test")) == 7


def test_fashion_mnist_is_the_same_format(tmp_path, monkeypatch):
    write(tmp_path / "fashion-mnist", suffix=".gz")
    monkeypatch.setenv("ROBENCH_DATA", str(tmp_path))
    fashion, digits = FashionMnist().load("test"), Mnist(tmp_path / "fashion-mnist").load("test")
    assert fashion.digest() == digits.digest()
    assert [fashion.classes[y] for y in fashion.y[:3]] == ["T-shirt/top", "Ankle boot", "Dress"]
    assert fashion.thresholds == FASHION_THRESHOLDS
    with pytest.raises(
        DataError, match=r"FashionMNIST` downloads them\) into a folder fashion-mnist.* fashion-mnist:FOLDER"
    ):
        FashionMnist(tmp_path).load("train")
    with pytest.raises(DataError, match="fashion-mnist has no split 'val'"):
        FashionMnist().load("val")


@pytest.mark.data
def test_the_test_set_at_hand_is_the_original(data_folder):
    """By the md5 sums that torchvision lists for the packed files; the images of `train` are another version."""
    folder = data_folder / "mnist"
    for name, md5 in {
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }.items():
        assert hashlib.md5((folder / name).read_bytes()).hexdigest() == md5
    samples = Mnist(folder).load("test")
    assert samples.digest() == ORIGINAL_TEST
    assert np.bincount(samples.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]

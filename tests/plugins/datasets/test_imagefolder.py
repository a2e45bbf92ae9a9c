import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from robench.errors import DataError
from robench.registry import load_plugins
from robench.testing import check_dataset
from robench_plugins.datasets.imagefolder import ImageFolder

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (9, 8, 8, 3), np.uint8)


def put(path, pixels=PIXELS[0], **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **how)
    return path


def eight(folder, **how):
    return ImageFolder(folder, resize=8, crop=8, **how)


@pytest.fixture
def folder(tmp_path):
    for number, (split, name) in enumerate([("train", "owl"), ("train", "cat"), ("train", "émeu"), ("val", "owl")]):
        for part in range(2):
            put(tmp_path / split / name / f"{part}.png", PIXELS[2 * number + part])
    return tmp_path


def test_pixels_of_the_right_size_are_left_as_they_are(folder):
    samples = eight(folder).load("train")
    assert samples.classes == ("cat", "owl", "émeu")
    assert samples.y.tolist() == [0, 0, 1, 1, 2, 2] and samples.index.tolist() == list(range(6))
    wanted = (PIXELS[[2, 3, 0, 1, 4, 5]].transpose(0, 3, 1, 2) / 255).astype(np.float32)
    assert np.array_equal(samples.x[:], wanted)
    assert np.array_equal(samples.x[np.array([4, 1])], wanted[[4, 1]]) and np.array_equal(samples.x[3], wanted[3])
    assert (samples.domain.lower, samples.domain.upper) == (0.0, 1.0)


def test_splits(folder):
    val = eight(folder).load("val")
    assert len(val) == 2 and val.y.tolist() == [1, 1] and val.classes == ("cat", "owl", "émeu")
    assert eight(folder).load("test").digest() == val.digest()  # ImageNet has no other
    put(folder / "test" / "zebra" / "a.png")
    assert eight(folder).load("test").y.tolist() == [2]
    with pytest.raises(DataError, match="no split 'best': choose train, val or test"):
        eight(folder).load("best")


def test_a_folder_without_splits_is_the_test_split(tmp_path):
    put(tmp_path / "a" / "1.png")
    put(tmp_path / "b" / "1.PNG")
    assert eight(tmp_path).load("test").y.tolist() == [0, 1]
    with pytest.raises(DataError, match="has no split train: put images into train/CLASS/"):
        eight(tmp_path).load("train")


@pytest.mark.parametrize(("height", "width"), [(8, 13), (13, 8), (8, 12), (9, 8), (8, 11)])
def test_the_crop_is_at_the_centre(tmp_path, height, width):
    pixels = RNG.integers(0, 256, (height, width, 3), np.uint8)
    put(tmp_path / "a" / "1.png", pixels)
    found = eight(tmp_path).load("test").x[0]
    top, left = round((height - 8) / 2), round((width - 8) / 2)
    assert np.array_equal(found, (pixels[top : top + 8, left : left + 8].transpose(2, 0, 1) / 255).astype(np.float32))


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_the_shorter_side_is_resized_and_filtered(tmp_path, name):
    """A ramp stays a ramp where the filter is whole, at the places of the new pixels' centres."""
    ramp = np.broadcast_to(np.arange(0, 240, 2, np.uint8)[None, :, None], (60, 120, 3))  # 2 per pixel
    put(tmp_path / "a" / "1.png", np.ascontiguousarray(ramp))
    found = ImageFolder(tmp_path, resize=20, crop=20, filter=name).load("test").x[0] * 255
    centres = (np.arange(10, 30) + 0.5) * 3 - 0.5  # of 40 columns, the middle 20
    assert np.allclose(found, 2 * centres, atol=0.6)


def test_the_published_sizes_are_the_default(tmp_path):
    put(tmp_path / "a" / "1.jpg", RNG.integers(0, 256, (300, 500, 3), np.uint8))
    data = ImageFolder(tmp_path)
    assert data.load("test").x[0:1].shape == (1, 3, 224, 224) and data.load("test").shape == (3, 224, 224)
    with pytest.raises(ValueError, match="crop=300 is larger than resize=256"):
        ImageFolder(tmp_path, crop=300)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK"])
def test_other_kinds_of_pixels_become_rgb(tmp_path, mode):
    image = Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / ("1.jpg" if mode == "CMYK" else "1.png"))
    assert np.allclose(eight(tmp_path).load("test").x[0], 1, atol=0.02)


def test_images_are_decoded_when_they_are_read(folder):
    (folder / "train" / "cat" / "1.png").write_bytes(b"not yet")
    samples = eight(folder).load("train")
    samples.batch(0, 1)
    with pytest.raises(DataError, match=r"cat/1\.png cannot be read as an image"):
        samples.batch(1, 2)


def png(width, height, depth=8, kind=2):
    """A PNG that announces these sizes, and holds next to nothing."""

    def chunk(name, raw):
        return struct.pack(">I", len(raw)) + name + raw + struct.pack(">I", zlib.crc32(name + raw))

    head = struct.pack(">2I5B", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def jpeg(tmp_path):
    return put(tmp_path / "whole.jpg", RNG.integers(0, 256, (64, 64, 3), np.uint8)).read_bytes()


def test_what_is_no_image_or_too_large(tmp_path):
    import tracemalloc

    gif = put(tmp_path / "x.gif").read_bytes()
    cases = {
        "bomb.png": (png(100_000, 100_000), "has more than 67108864 pixels"),
        "large.png": (png(10_000, 10_000), "has more than 67108864 pixels"),
        "strip.png": (png(1, 600_000), "too narrow to be resized"),
        "short.png": (png(64, 64), "cannot be read as an image|is damaged"),
        "empty.png": (b"", "cannot be read as an image"),
        "text.png": (b"no image", "cannot be read as an image"),
        "gif.png": (gif, "cannot be read as an image"),
        "half.jpg": (jpeg(tmp_path)[:-1500], "cannot be read as an image: image file is truncated"),
        "deep.png": (png(8, 8, 16, 0), "pixels of the kind I;16: save it with 8 bits"),
    }
    data = tmp_path / "data" / "a"
    data.mkdir(parents=True)
    for name, (raw, reason) in cases.items():
        (data / name).write_bytes(raw)
        tracemalloc.start()
        with pytest.raises(DataError, match=reason) as caught:
            ImageFolder(tmp_path / "data").load("test").batch(0, 1)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()
        assert "\n" not in str(caught.value) and name in str(caught.value)
        (data / name).unlink()


def test_a_file_that_is_too_large_is_not_opened(tmp_path):
    path = put(tmp_path / "a" / "1.png")
    with path.open("r+b") as file:
        file.truncate((1 << 27) + 1)
    with pytest.raises(DataError, match="more than 128 MiB"):
        eight(tmp_path).load("test").batch(0, 1)


def test_links_do_not_lead_out_of_the_folder(tmp_path):
    outside = put(tmp_path / "secret" / "1.png")
    data = tmp_path / "data"
    put(data / "a" / "1.png")
    (data / "a" / "2.png").symlink_to(data / "a" / "1.png")
    assert len(eight(data).load("test")) == 2
    for link, target in ((data / "a" / "3.png", outside), (data / "b", outside.parent), (data / "c", data / "..")):
        link.symlink_to(target)
        with pytest.raises(DataError, match="is a link out of the folder"):
            eight(data).load("test")
        link.unlink()


def test_a_split_is_no_way_out_either(tmp_path):
    put(tmp_path / "secret" / "a" / "1.png")
    data = tmp_path / "data"
    put(data / "train" / "a" / "1.png")
    (data / "val").symlink_to(data / "train")
    assert len(eight(data).load("val")) == 1
    (data / "test").symlink_to(tmp_path / "secret")
    for split in ("train", "val", "test"):
        with pytest.raises(DataError, match="test is a link out of the folder"):
            eight(data).load(split)


def test_what_else_lies_about(tmp_path):
    put(tmp_path / "a" / "1.png")
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "readme.txt").write_text("beside the classes")
    assert len(eight(tmp_path).load("test")) == 1
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"x")
    with pytest.raises(DataError, match=r"Thumbs\.db is no image \(\.jpg, "):
        eight(tmp_path).load("test")


def test_names_that_cannot_be_printed(tmp_path):
    put(tmp_path / "a\x1b[31m" / "1.png")
    with pytest.raises(DataError, match="what cannot be printed") as caught:
        eight(tmp_path).load("test")
    assert str(caught.value).isprintable()


def test_folders_that_are_none(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        eight(tmp_path / "none").load("test")
    with pytest.raises(DataError, match="is no folder"):
        eight(put(tmp_path / "1.png")).load("test")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no images"):
        eight(tmp_path / "empty").load("test")


def test_specs_name_content_and_no_path(folder):
    spec = load_plugins().resolve("datasets", f"imagefolder:{folder},crop=8,resize=8").canonical
    assert spec.startswith(f"imagefolder:{folder.name}@sha256:") and str(folder.parent) not in spec


def test_conforms(folder):
    check_dataset(eight(folder))

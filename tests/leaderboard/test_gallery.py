"""The gallery: the right samples, the right pixels, and no more of the witnesses read than it needs."""

import base64
import re
import shutil
import struct
import zlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.evidence import fake_run
from robench.metrics import subjects
from robench_leaderboard._gallery import galleries_of
from robench_leaderboard._png import data_uri, png

INF = float("inf")


def pixels(data):
    """Decode a PNG without interlacing or filters, checking every length and checksum."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, chunks = 8, []
    while place < len(data):
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        content = data[place + 8 : place + 8 + size]
        assert struct.unpack(">I", data[place + 8 + size : place + 12 + size]) == (zlib.crc32(kind + content),)
        chunks.append((kind, content))
        place += 12 + size
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, color, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert depth == 8 and rest == [0, 0, 0]
    channels = {0: 1, 2: 3}[color]
    raw = np.frombuffer(zlib.decompress(chunks[1][1]), np.uint8).reshape(height, 1 + width * channels)
    assert not raw[:, 0].any()
    image = raw[:, 1:].reshape(height, width, channels)
    return image[..., 0] if channels == 1 else image


def image_of(uri):
    assert uri.startswith("data:image/png;base64,")
    return pixels(base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True))


@given(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(0, 2**31))
def test_png_round_trip(height, width, rgb, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3) if rgb else (height, width), np.uint8)
    assert np.array_equal(pixels(png(image)), image)


def test_png_of_many_blocks():
    image = np.random.default_rng(0).integers(0, 256, (300, 301, 3), np.uint8)  # 271 kB: five stored blocks
    assert np.array_equal(pixels(png(image)), image)
    exact = np.zeros((65535 // 257, 256), np.uint8)  # fills its last block
    assert np.array_equal(pixels(png(exact)), exact)


@pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2), np.uint8)])
def test_png_refuses_what_it_cannot_write(bad):
    with pytest.raises(ValueError, match="no 8-bit"):
        png(bad)


@pytest.mark.browser
def test_chromium_sees_the_same_pixels():
    from playwright.sync_api import sync_playwright

    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, shape, np.uint8) for shape in ((1, 1), (8, 8), (5, 9, 3), (200, 250, 3))]
    script = """async uri => {
        const image = new Image(); image.src = uri; await image.decode();
        const canvas = document.createElement('canvas');
        canvas.width = image.width; canvas.height = image.height;
        const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);
        return Array.from(context.getImageData(0, 0, image.width, image.height).data);
    }"""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        for image in images:
            seen = np.array(tab.evaluate(script, data_uri(image)), np.uint8).reshape(*image.shape[:2], 4)
            expected = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
            assert np.array_equal(seen[..., :3], expected)
            assert (seen[..., 3] == 255).all()
        browser.close()


def run_with(shape=(1, 4, 4), n=6, number=0, eps=0.25, broken=None, clean_for=24, **changes):
    """A run that breaks `broken` samples: clean image i is a ramp, the witness adds `eps` to one half of it."""
    broken = range(n) if broken is None else broken
    run = fake_run(number, net="net", n=n, shape=shape, eps=(f"{eps}",), evaluators=(("pgd", "attack"),), **changes)
    run.clean(dict.fromkeys(range(n), True))
    run.add(
        "pgd",
        "attack",
        "linf",
        eps,
        {i: ("falsified", 0.0, eps) if i in broken else ("open", 0.0, INF) for i in range(n)},
    )
    for i in broken:
        clean, point = clean_image(shape, i), adversarial(shape, i, eps)
        delta = point.astype(float) - clean
        run.points.add_rows(
            evaluator="pgd", norm="linf", eps=eps, sample=np.array([i]), points=point[None],
            clean=[clean if i < clean_for else None],
            linf=np.nextafter(np.abs(delta).max(), 1), l2=np.nextafter(np.linalg.norm(delta), 9),
            l1=np.nextafter(np.abs(delta).sum(), 99), prediction=1, margin=-0.5,
        )  # fmt: skip
    return run


def clean_image(shape, i):
    return (0.25 + 0.5 * np.linspace(0, 1, int(np.prod(shape))).reshape(shape) * (i + 1) / 10).astype(np.float32)


def adversarial(shape, i, eps):
    point = clean_image(shape, i).copy()
    point[..., : shape[-1] // 2] += np.float32(eps)
    point[..., -1] -= np.float32(eps / 2)
    return point


def gallery(*runs, norm="linf"):
    (subject,) = subjects(runs)
    by_name = {run.manifest.run: run for run in runs}
    return galleries_of(subject, lambda name: by_name[name].iter_witnesses())[norm]


def as_bytes(image, low, high):
    share = (image.astype(np.float64) - low) / (high - low)
    levels = np.floor(share * 255 + 0.5).astype(np.uint8)
    return levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 5, 4)])
def test_pictures_are_the_samples(shape):
    found = gallery(run_with(shape))
    assert [picture.sample for picture in found.pictures] == list(range(6))
    for i, picture in enumerate(found.pictures):
        clean, point = clean_image(shape, i), adversarial(shape, i, 0.25)
        assert np.array_equal(image_of(picture.clean), as_bytes(clean, 0, 1))
        assert np.array_equal(image_of(picture.adversarial), as_bytes(point, 0, 1))
        delta = point.astype(float) - clean.astype(float)
        assert picture.scale == np.abs(delta).max()
        assert np.array_equal(image_of(picture.difference), as_bytes(delta, -picture.scale, picture.scale))
        assert (picture.width, picture.height) == (shape[2], shape[1])
        assert (picture.label, picture.prediction, picture.evaluator, picture.eps) == (0, 1, "pgd", "0.25")
        assert picture.distances["l2"] == pytest.approx(np.linalg.norm(delta))
    unchanged = image_of(found.pictures[0].difference)[0, shape[-1] // 2]
    assert (unchanged == 128).all()  # no change is the middle of grey
    assert found.note == "Black to white is 0 to 1."


def test_the_domain_is_black_to_white():
    wide = run_with()
    wide.manifest = wide.manifest.replace(dataset=wide.manifest.dataset.model_copy(update={"domain": (-1.0, 3.0)}))
    first = gallery(wide).pictures[0]
    assert np.array_equal(image_of(first.clean), as_bytes(clean_image((1, 4, 4), 0), -1, 3))
    unbounded = run_with()
    dataset = unbounded.manifest.dataset.model_copy(update={"domain": (None, None)})
    unbounded.manifest = unbounded.manifest.replace(dataset=dataset)
    found = gallery(unbounded)
    assert "own range" in found.note
    assert {0, 255} <= set(image_of(found.pictures[0].clean).ravel().tolist())


def test_a_sample_is_shown_with_its_nearest_witness():
    far, near = run_with(number=0, eps=0.5), run_with(number=1, eps=0.125, broken=[2, 3])
    found = gallery(far, near)
    assert {picture.sample: picture.eps for picture in found.pictures} == {
        **dict.fromkeys(range(6), "0.5"), 2: "0.125", 3: "0.125",
    }  # fmt: skip
    again = gallery(near, far)
    assert again == found


def test_at_most_a_dozen():
    assert [picture.sample for picture in gallery(run_with(n=20, broken=range(3, 20))).pictures] == list(range(3, 15))


def test_large_images_are_few():
    assert len(gallery(run_with((3, 224, 224), n=3)).pictures) == 1
    found = gallery(run_with((1, 600, 2), n=1))
    assert not found.pictures and "too large" in found.note


@pytest.mark.parametrize("shape", [(4,), (2, 3, 3), (4, 4), (1, 1, 3, 3)])
def test_what_is_no_image_gets_a_sentence(shape):
    found = gallery(run_with(shape, n=2))
    assert not found.pictures and "not images" in found.note
    assert "×".join(map(str, shape)) in found.note


def test_without_witnesses_or_clean_inputs_there_is_a_sentence():
    assert "No witness" in gallery(run_with(broken=[])).note
    assert "No witness" in gallery(run_with(clean_for=0)).note


def test_a_witness_of_a_wrong_size_is_left_out():
    """A stranger's file may say one shape and hold another."""
    run = run_with()
    table = run.witnesses()
    place = table.column_names.index("shape")
    run.found = table.set_column(place, table.field("shape"), pa.array(["1x9x9"] * len(table)).dictionary_encode())
    assert not gallery(run).pictures
    run = run_with((1, 4, 4))
    table = run.witnesses()
    run.found = table.set_column(place, table.field("shape"), pa.array(["16"] * len(table)).dictionary_encode())
    assert not gallery(run).pictures  # the right number of bytes, but no image


def test_only_the_first_parts_are_read():
    """Parts come in the order of samples; behind the first that lacks a clean input none can keep one."""
    run = run_with(n=30)
    parts = [run.witnesses().slice(start, 10) for start in (0, 10, 20)]
    read = []

    def lazily(_):
        for i, part in enumerate([*parts, parts[-1], parts[-1]]):
            read.append(i)
            yield part

    (subject,) = subjects([run])
    assert len(galleries_of(subject, lazily)["linf"].pictures) == 12
    assert read == [0, 1, 2]


def test_the_page_shows_them(tmp_path):
    from oracles.pages import site_of

    files = site_of(tmp_path, [run_with()])
    html = next(data.decode() for name, data in files.items() if name.startswith("net-") and name.endswith(".html"))
    shown = re.findall(r'<img src="([^"]*)"[^>]* alt="Sample (\d+), (\w+)"', html)
    assert [(int(sample), kind) for _, sample, kind in shown] == [
        (i, kind) for i in range(6) for kind in ("clean", "adversarial", "difference")
    ]
    assert [uri for uri, *_ in shown][:2] == [
        gallery(run_with()).pictures[0].clean,
        gallery(run_with()).pictures[0].adversarial,
    ]


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_the_page_is_accessible_and_no_wider_than_the_screen(tmp_path, scheme, width):
    """With every detail open; images load under the content security policy."""
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    from oracles.pages import site_of

    files = site_of(tmp_path, [run_with(display={"name": "Net"})])
    name = next(name for name in files if name.startswith("net-") and name.endswith(".html"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        tab = context.new_page()
        messages = []
        tab.on("console", lambda message: messages.append(message.text))
        tab.goto((tmp_path / "site" / name).as_uri())
        for details in tab.query_selector_all("main details"):
            details.evaluate("element => element.open = true")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        loaded = "[...document.images].map(image => image.complete && image.naturalWidth > 0)"
        assert tab.evaluate(loaded) == [True] * 18
        assert messages == []
        assert [found["id"] for found in Axe().run(tab).response["violations"]] == []
        browser.close()


@pytest.mark.parametrize("shape", [(0, 2, 2), (1, 0, 2), (3, 2, 0)])
def test_a_shape_without_values_is_no_image(shape):
    run = fake_run(0, shape=shape).clean(dict.fromkeys(range(4), True))
    run.add("pgd", "attack", "linf", 0.1, dict.fromkeys(range(4), ("open", 0.0, INF)))
    (subject,) = subjects([run])
    (gallery,) = galleries_of(subject, lambda name: run.iter_witnesses()).values()
    assert gallery.pictures == ()
    assert "not images" in gallery.note


def test_values_whose_difference_overflows_are_not_drawn():
    run = fake_run(0, shape=(1, 1, 2)).clean(dict.fromkeys(range(4), True))
    run.add("pgd", "attack", "linf", 0.1, dict.fromkeys(range(4), ("falsified", 0.0, 0.1)))
    told = {"linf": 0.1, "l2": 0.1, "l1": 0.1}
    low = np.full((1, 1, 2), -np.inf, np.float32)
    run.witness("pgd", "linf", 0.1, 0, [[[np.inf, 0]]], clean=[low], **told)
    run.points.add_rows(
        evaluator="pgd",
        norm="linf",
        eps=0.1,
        sample=np.array([1]),
        points=np.full((1, 1, 1, 2), 1.7e308),
        clean=[np.full((1, 1, 2), -1.7e308)],
        prediction=1,
        margin=-0.25,
        **told,
    )
    (subject,) = subjects([run])
    (gallery,) = galleries_of(subject, lambda name: run.iter_witnesses()).values()
    assert gallery.pictures == ()

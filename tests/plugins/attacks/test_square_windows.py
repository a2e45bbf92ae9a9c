"""Where the Square Attack's windows lie, how large they are, and what they hold: against published figures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from robench.streams import Stream
from robench_plugins.attacks._square_bumps import _inside, _tiling, bump
from robench_plugins.attacks._square_windows import Frame, Streams, corners, share, window


def test_share_follows_the_published_schedule():
    """Andriushchenko et al. 2020, section 4, for 10,000 queries; half of each point for 5,000."""
    points = [0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001, 4000, 4001, 6000, 6001, 8000, 8001, 9999]
    halvings = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]
    assert [share(at, 10_000, 0.8) for at in points] == [0.8 / 2**times for times in halvings]
    assert [share(at, 5000, 0.8) for at in (5, 6, 25, 26, 4000, 4001)] == [0.8, 0.4, 0.4, 0.2, 0.8 / 256, 0.8 / 512]


def test_sides_of_windows():
    cifar = Frame.of((3, 32, 32))
    assert [window(0.8 / 2**k, cifar)[0] for k in range(10)] == [29, 20, 14, 10, 7, 5, 4, 3, 2, 1]
    assert [window(0.8 / 2**k, cifar, 3, odd=True)[0] for k in range(10)] == [29, 21, 15, 11, 7, 5, 5, 3, 3, 3]
    for frame in (cifar, Frame(1, 1, 64), Frame(2, 2, 50), Frame(1, 40, 3), Frame(1, 1, 1), Frame(1, 2, 2)):
        for portion, least in itertools.product((1.0, 0.8, 0.3, 0.05, 1e-4), (1, 3)):
            height, width = window(portion, frame, least, odd=least == 3)
            assert 1 <= height <= frame.height
            assert 1 <= width <= frame.width
            # The published share, although one side may be short: only rounding is off.
            if portion * frame.pixels >= 9 and least == 1:
                assert height * width == pytest.approx(portion * frame.pixels, rel=0.25)
    assert window(0.8, Frame(1, 2, 50)) == (2, 40)
    assert window(0.25, Frame(1, 1, 64)) == (1, 16)
    assert window(0.8, Frame(1, 1, 64), 3, odd=True) == (1, 51)


def test_how_inputs_are_read():
    assert Frame.of((3, 4, 5)) == Frame(3, 4, 5)
    assert Frame.of((4, 5)) == Frame(1, 4, 5)
    assert Frame.of((7,)) == Frame(1, 1, 7)
    assert Frame.of((2, 3, 4, 5)) == Frame(6, 4, 5)
    offsets = Frame(2, 3, 4).offsets((2, 2), torch.device("cpu"))
    image = torch.arange(24).reshape(2, 3, 4)
    assert torch.equal(image.flatten()[1 * 4 + 2 + offsets], image[:, 1:3, 2:4].flatten())


@pytest.mark.parametrize("frame", [Frame(1, 8, 8), Frame(3, 5, 9), Frame(1, 1, 17), Frame(1, 7, 1)], ids=str)
@pytest.mark.parametrize("portion", [0.8, 0.3, 0.01])
def test_windows_lie_everywhere_equally_often(frame, portion):
    """Every position is as likely: the published codes never take the last row and column of positions."""
    size = window(portion, frame)
    places = frame.height - size[0] + 1, frame.width - size[1] + 1
    streams = Streams([Stream.for_samples(0, "windows", range(50)), Stream.for_samples(1, "windows", range(50))])
    draws = streams.uniform((400, 2)).transpose(0, 1)
    row, column = corners(draws, [size] * 400, frame)
    seen = torch.zeros(places).index_put((row, column), torch.tensor(1.0), accumulate=True)
    assert seen.sum() == 40_000
    assert (seen > 0).all()
    if seen.numel() > 1:
        assert chisquare(seen.flatten().numpy()).pvalue > 1e-4


def test_the_last_position_is_never_passed():
    top = torch.tensor(1 - 2.0**-24).expand(1, 1, 2)
    for n in [*range(1, 300), 4096, 65535, 99999]:
        row, column = corners(top, [(1, 1)], Frame(1, n, 2 * n))
        assert (row.item(), column.item()) == (n - 1, 2 * n - 1)


def test_streams_side_by_side_keep_their_draws():
    parts = [Stream.for_samples(seed, "s", range(4)) for seed in (0, 1)]
    whole = Streams(parts)
    whole.uniform((3,))
    rows = torch.tensor([True, False, False, True, False, True, False, False])
    kept = whole.select(rows).uniform((5,))
    fresh = Streams([Stream.for_samples(seed, "s", range(4)) for seed in (0, 1)])
    fresh.uniform((3,))
    assert torch.equal(kept, fresh.uniform((5,))[rows])


def published_bump(norm, size):
    """Eq. (3) as a sum over centred squares, halves of opposite signs; each half and the whole of norm 1."""
    steep, order = (2, 2) if norm == "l2" else (4, 1)

    def pyramid(height, width):
        out = np.zeros((height, width))
        for k in range(max(height, width) // 2 + 1):
            rows = [i for i in range(height) if abs(i - height // 2) <= k]
            columns = [j for j in range(width) if abs(j - width // 2) <= k]
            out[np.ix_(rows, columns)] += 1 / (k + 1) ** steep
        return out / (np.abs(out) ** order).sum() ** (1 / order) if out.size else out

    half = size // 2
    out = np.concatenate([pyramid(half, size), -pyramid(size - half, size)])
    return out / (np.abs(out) ** order).sum() ** (1 / order)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_bumps(norm):
    like = torch.zeros(1, dtype=torch.float64)
    for side in (2, 3, 5, 8, 21):
        expected = published_bump(norm, side)
        made = bump(norm, (side, side), like).reshape(2, side, side).numpy()
        np.testing.assert_allclose(made, [expected, expected.T], atol=1e-14)
    for size in ((1, 1), (1, 7), (7, 1), (2, 9)):
        made = bump(norm, size, like)
        assert made.shape == (2, size[0] * size[1])
        assert torch.allclose(made.norm(p=2 if norm == "l2" else 1, dim=1), torch.ones(2, dtype=torch.float64))
        if size != (1, 1):
            assert ((made > 0).any(1) & (made < 0).any(1)).all()


@pytest.mark.parametrize("frame", [Frame(1, 8, 8), Frame(1, 14, 14), Frame(3, 3, 11), Frame(1, 1, 4)], ids=str)
def test_the_start_covers_the_image(frame):
    tiles, patterns = _tiling("l2", frame)
    assert tiles.shape == (frame.pixels,)
    assert (tiles.bincount() > 0).all()
    assert len(tiles.unique()) == min(5, frame.height) * min(5, frame.width)
    assert (patterns != 0).all()


def test_overlaps_of_windows():
    size = (3, 2)
    for first, second in itertools.product(itertools.product(range(5), range(5)), repeat=2):
        masks = torch.zeros(2, 7, 6, dtype=torch.bool)
        for mask, (row, column) in zip(masks, (first, second), strict=True):
            mask[row : row + 3, column : column + 2] = True
        apart = torch.tensor([[second[0] - first[0], second[1] - first[1]]])
        shared = (masks[0] & masks[1])[second[0] : second[0] + 3, second[1] : second[1] + 2]
        assert torch.equal(_inside(apart, size)[0], shared.flatten())

"""Streams: known answers, and draws that depend on the sample alone."""

import numpy as np
import pytest
import scipy.stats
import torch

from robench.streams import Stream, _philox


def words(*values):
    return tuple(torch.tensor([value]) for value in values)


# Known answers published with the Random123 library (Salmon et al. 2011), philox4x32 with 10 rounds.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, expected):
    assert tuple(int(word) for word in _philox(words(*counter), words(*key))) == expected


def test_rows_do_not_depend_on_the_batch_or_its_order():
    samples = [3, 1, 4, 15, 92, 65]
    whole = Stream.for_samples(7, "pgd", samples)
    first = [whole.uniform((2, 3)), whole.normal((5,)), whole.integers((4,), 10)]
    for order in ([5, 4, 3, 2, 1, 0], [2], [0, 3]):
        part = Stream.for_samples(7, "pgd", [samples[i] for i in order])
        again = [part.uniform((2, 3)), part.normal((5,)), part.integers((4,), 10)]
        for one, other in zip(first, again, strict=True):
            assert torch.equal(one[order], other)


def test_select_goes_on_where_the_stream_is():
    whole = Stream.for_samples(0, "pgd", range(8))
    whole.uniform((3,))
    rows = torch.tensor([1, 6])
    part = whole.select(rows)
    assert torch.equal(whole.uniform((3,))[rows], part.uniform((3,)))


def test_children_ignore_the_draws_made_and_differ_from_each_other():
    stream = Stream.for_samples(0, "pgd", range(4))
    before = stream.child("restart", 1).uniform((8,))
    stream.uniform((8,))
    assert torch.equal(stream.child("restart", 1).uniform((8,)), before)
    assert not torch.equal(stream.child("restart", 2).uniform((8,)), before)
    assert not torch.equal(stream.uniform((8,)), before)


@pytest.mark.parametrize("change", [{"seed": 1}, {"evaluator": "fgsm"}, {"samples": [5]}])
def test_every_part_of_the_key_matters(change):
    given = {"seed": 0, "evaluator": "pgd", "samples": [4]}
    one = Stream.for_samples(**given).uniform((16,))
    assert not torch.equal(Stream.for_samples(**(given | change)).uniform((16,)), one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distributions(dtype):
    stream = Stream.for_samples(1, "test", range(64))
    uniform = stream.uniform((2000,), dtype=dtype)
    assert uniform.dtype == dtype
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert scipy.stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > 1e-3
    normal = stream.normal((2001,), dtype=dtype)
    assert scipy.stats.kstest(normal.flatten().numpy(), "norm").pvalue > 1e-3
    # Neighbouring samples and neighbouring draws are uncorrelated.
    correlations = np.corrcoef(normal.numpy())
    assert np.abs(correlations - np.eye(64)).max() < 5 / np.sqrt(2001)
    counts = torch.bincount(stream.integers((2000,), 10).flatten(), minlength=10)
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_range_and_shapes():
    stream = Stream.for_samples(0, "test", range(3))
    drawn = stream.uniform((4, 5), -2, 3)
    assert drawn.shape == (3, 4, 5)
    assert -2 <= drawn.min() < -1.5
    assert 2.5 < drawn.max() < 3
    assert Stream.for_samples(0, "test", []).normal((4,)).shape == (0, 4)
    assert stream.uniform(()).shape == (3,)


def test_global_random_state_is_untouched():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Stream.for_samples(0, "test", range(3)).normal((4,))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
def test_devices_agree():
    cpu, gpu = (Stream.for_samples(5, "pgd", range(32), device) for device in ("cpu", "cuda"))
    assert torch.equal(cpu.uniform((100,)), gpu.uniform((100,)).cpu())
    assert torch.equal(cpu.integers((100,), 1000), gpu.integers((100,), 1000).cpu())
    assert (cpu.normal((1000,)) - gpu.normal((1000,)).cpu()).abs().max() <= 1e-6


def test_repeated_streams_are_children_of_the_batch():
    stream = Stream.for_samples(3, "eot", range(4))
    both = stream.repeat(3, "draw").uniform((5,))
    for copy in range(3):
        assert torch.equal(both[4 * copy : 4 * copy + 4], stream.child("draw", copy).uniform((5,)))
    assert len(stream.repeat(0)) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_streams_of_rows_follow_their_numbers_alone(dtype):
    rows = torch.rand(64, 3, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    stream = Stream.for_samples(7, "pgd | eot", [3, 1, 4])
    drawn = stream.of_rows(rows).uniform((2,))
    assert len({tuple(row) for row in drawn.tolist()}) == len(rows)
    order = torch.tensor([9, 2, 63, 2])
    for other in (stream, stream.select(torch.tensor([1])), Stream.for_samples(7, "pgd | eot", [9])):
        assert torch.equal(other.of_rows(rows[order]).uniform((2,)), drawn[order])
        assert torch.equal(other.child("restart", 1).of_rows(rows[order]).uniform((2,)), drawn[order])
    for seed, name in ((8, "pgd | eot"), (7, "pgd")):
        assert not (Stream.for_samples(seed, name, [3]).of_rows(rows).uniform((2,)) == drawn).any()
    zeros = torch.zeros(1, 12, dtype=dtype)
    assert torch.equal(stream.of_rows(zeros).uniform((2,)), stream.of_rows(-zeros).uniform((2,)))
    assert stream.of_rows(rows[:0]).uniform((2,)).shape == (0, 2)


def test_neighbouring_rows_have_independent_streams():
    # One unit in the last place of one number: every word of the hash must change.
    base = torch.full((1, 50), 0.5)
    rows = base.repeat(4001, 1)
    rows[1:, 7] = base[0, 7] + torch.arange(1, 4001) * 2.0**-24
    drawn = Stream.for_samples(0, "e", [0]).of_rows(rows).uniform((1,), dtype=torch.float64)[:, 0]
    assert scipy.stats.kstest(drawn, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 5 / 4000**0.5

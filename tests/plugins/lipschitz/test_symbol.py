"""The bound of a convolution from its kernel: never below the norm on any map, near it on large ones, and its parts."""

import math
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robench.numerics import gamma
from robench_plugins.lipschitz import _correlation, _grid, symbol
from robench_plugins.lipschitz._correlation import correlate, row_sums, sums
from robench_plugins.lipschitz._grid import grid_maximum
from robench_plugins.lipschitz.symbol import convolution_norm_upper, plan, torus_of, unfolded


def draw(*shape, seed=0):
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def on_a_map(weight, size, stride, padding, dilation, groups):
    """The largest singular value on maps of `size` with zero padding, from torch's own convolution."""
    rank = weight.dim() - 2
    units = torch.eye(weight.shape[1] * groups * math.prod(size), dtype=torch.float64)
    units = units.reshape(-1, weight.shape[1] * groups, *size)
    around = [value for axis in reversed(range(rank)) for value in (padding[axis], padding[rank + axis])]
    convolve = torch.nn.functional.conv1d if rank == 1 else torch.nn.functional.conv2d
    out = convolve(torch.nn.functional.pad(units, around), weight, None, stride, 0, dilation, groups)
    return float(torch.linalg.svdvals(out.flatten(1))[0])


def parts(weight, stride, dilation, groups, fineness=8):
    """Each bound by itself; the grid as coarse as it comes."""
    kernel = unfolded(weight, stride, dilation, groups)
    scale = float(kernel.abs().max())
    correlation = correlate(kernel / scale)
    counts = tuple(max(1, fineness * (taps - 1)) for taps in kernel.shape[3:])
    squares = sums(kernel / scale), row_sums(correlation), grid_maximum(correlation, counts)
    return [math.sqrt(value) * scale for value in squares]


@settings(max_examples=80)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2]))
def test_no_map_padding_stride_dilation_or_grouping_has_a_larger_norm(seed, rank):
    rng = np.random.default_rng(seed)
    groups, out, inner = (int(rng.integers(1, 4)) for _ in range(3))
    kernel, stride, dilation = (rng.integers(1, 4, rank).tolist() for _ in range(3))
    padding = rng.integers(0, 3, 2 * rank).tolist()
    size = [int(rng.integers(d * (k - 1) + 1, d * (k - 1) + 6)) for k, d in zip(kernel, dilation, strict=True)]
    weight = torch.tensor(rng.normal(size=(groups * out, inner, *kernel)) * (rng.random() < 0.8 or 1e-3))
    true = on_a_map(weight, size, stride, padding, dilation, groups)
    bound, _ = convolution_norm_upper(weight, stride, dilation, groups)
    assert true <= bound * (1 + 1e-13)
    for value in parts(weight, stride, dilation, groups):
        assert bound <= value * (1 + 1e-12) or true <= value * (1 + 1e-13)
        assert true <= value * (1 + 1e-13)
    torus = around(size, kernel, stride, padding, dilation)
    if torus is not None:
        value, source = convolution_norm_upper(weight, stride, dilation, groups, torus=torus)
        assert true <= value * (1 + 1e-13) and value <= bound * (1 + 1e-9) and source != "grid"


def around(size, kernel, stride, padding, dilation):
    """The frequencies of a torus for a map, along two axes."""
    found = []
    for axis, n in enumerate(size):
        before, after = padding[axis], padding[len(size) + axis]
        reach = dilation[axis] * (kernel[axis] - 1)
        windows = (n + before + after - reach - 1) // stride[axis] + 1
        found.append(torus_of(n, windows, kernel[axis], stride[axis], dilation[axis], (before, after)))
    return None if None in found else (*found, 1)[:2]


def on_a_torus(weight, pixels, stride):
    """The largest singular value with circular padding, from torch's own convolution."""
    units = torch.eye(weight.shape[1] * pixels, dtype=torch.float64).reshape(-1, weight.shape[1], pixels)
    wrapped = torch.cat([units] * (1 + -(-weight.shape[2] // pixels)), 2)[..., : pixels + weight.shape[2] - 1]
    return float(torch.linalg.svdvals(torch.nn.functional.conv1d(wrapped, weight, stride=stride).flatten(1))[0])


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_torus_is_exact(stride):
    """Its norm is that of circular convolution, also where the taps go around more than once."""
    for frequencies in (1, 2, 5, 8):
        weight = draw(3, 2, 5, seed=stride)
        bound, source = convolution_norm_upper(weight, [stride], torus=(frequencies, 1))
        true = on_a_torus(weight, frequencies * stride, stride)
        assert true <= bound * (1 + 1e-13)
        assert source != "torus" or bound < true * (1 + 1e-9)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_torus_without_room_is_below_the_norm(stride):
    """The map's own size, which circular padding has, and one pixel less than what is asked for."""
    refuted = set()
    for seed in range(30):
        weight = draw(1, 1, 4, seed=seed)
        for size, padding in ((3, (3, 3)), (6, (1, 3)), (6, (3, 0)), (5, (0, 0))):
            true = on_a_map(weight, [size], [stride], padding, [1], 1)
            (enough, _) = around([size], [4], [stride], padding, [1])
            for frequencies in {-(-size // stride), enough}:
                bound = convolution_norm_upper(weight, [stride], torus=(frequencies, 1))[0]
                if true > bound * (1 + 1e-9):
                    refuted.add(frequencies < enough)
    assert refuted == {True}


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("taps", [2, 3, 5])
def test_large_maps_come_close(stride, dilation, taps):
    """The norm on finite maps grows to the bound's supremum: neither stride nor dilation costs a factor."""
    for groups in (1, 2)[: 1 + (taps == 3)]:
        weight = draw(3 * groups, 2, taps, seed=10 * stride + dilation)
        size = 60 * math.gcd(stride, dilation) * (dilation if stride % dilation else 1)
        true = on_a_map(weight, [size], [stride], [taps, taps], [dilation], groups)
        bound, source = convolution_norm_upper(weight, [stride], [dilation], groups)
        assert true <= bound < true * 1.01 and source in ("grid", "rows", "sums")


def test_known_suprema():
    """Closed forms of the symbol's largest value, 2 − 2cos θ, 1 + 2cos θ, 3 + 8i sin θ, and products."""
    cases = {(-1.0, 2.0, -1.0): 4.0, (1.0, 1.0, 1.0): 3.0, (-4.0, 3.0, 4.0): math.sqrt(73), (1.0, 0.0, 0.0, -1.0): 2.0}
    for taps, norm in cases.items():
        assert norm <= convolution_norm_upper(torch.tensor([[taps]]))[0] <= norm * 1.0005
        for other, second in list(cases.items())[:2]:
            outer = torch.outer(torch.tensor(taps), torch.tensor(other))[None, None].double()
            assert norm * second <= convolution_norm_upper(outer)[0] <= norm * second * 1.001
    second = torch.tensor([[[-1.0, 2.0, -1.0]]])
    assert convolution_norm_upper(second, [1], [5])[0] == convolution_norm_upper(second)[0]
    # Apart from each other by the stride: a single matrix (−1, 2, −1).
    assert convolution_norm_upper(second, [3])[0] == pytest.approx(math.sqrt(6), rel=1e-11)
    assert convolution_norm_upper(second, [4], [2])[0] == pytest.approx(
        convolution_norm_upper(second, [2])[0], rel=1e-12
    )


def is_above_the_symbol(bound, taps):
    """Whether bound² − |Σ w_k e^{ikθ}|² has no zero, in fractions: a polynomial in cos θ, after Sturm."""
    x = sympy.Symbol("x")
    taps = [sympy.Rational(*Fraction(tap).as_integer_ratio()) for tap in taps]
    total = sympy.Rational(*Fraction(bound).as_integer_ratio()) ** 2 - sum(tap**2 for tap in taps)
    for delta in range(1, len(taps)):
        sum_ = sum(a * b for a, b in zip(taps, taps[delta:], strict=False))
        total -= 2 * sum_ * sympy.chebyshevt(delta, x)
    polynomial = sympy.Poly(total, x)
    return polynomial.eval(0) > 0 and polynomial.count_roots(-1, 1) == 0


@pytest.mark.parametrize("taps", [2, 3, 4, 6])
def test_above_the_symbol_at_every_frequency_in_exact_arithmetic(taps):
    for seed in range(6):
        values = np.random.default_rng(seed).normal(size=taps) * 10.0 ** np.random.default_rng(seed).integers(
            -8, 1, taps
        )
        weight = torch.tensor(values[None, None])
        bound, _ = convolution_norm_upper(weight)
        assert is_above_the_symbol(bound, values.tolist()) and not is_above_the_symbol(bound * 0.998, values.tolist())
        for value in parts(weight, [1], [1], 1):
            assert is_above_the_symbol(value, values.tolist())


def _turns(channels, seed=0):
    """Taps QP and Q(I − P) of an orthogonal convolution (Xiao et al. 2018): every singular value is 1 at all θ."""
    turn = torch.linalg.qr(draw(channels, channels, seed=seed))[0]
    half = torch.linalg.qr(draw(channels, channels // 2, seed=seed + 1))[0]
    inside = half @ half.T
    return torch.stack((turn @ inside, turn - turn @ inside), 2)


def test_orthogonal_convolutions_cost_nothing():
    """The correction is about the variation over the grid: there is none, on the coarsest grid as well."""
    for weight in (_turns(8), torch.einsum("oka,kib->oiab", _turns(8), _turns(8, 5))):
        assert 1 - 1e-12 < parts(weight, (), (), 1)[2] < 1 + 1e-10
        assert convolution_norm_upper(weight)[0] < 1 + 1e-10


def test_almost_orthogonal_layers_are_seen_to_be_within_1():
    """W D^−½ with D_i = Σ_j |WᵀW|_ij (Prach & Lampert 2022): its rows give 1 for the right scaling alone."""
    weight = draw(12, 10, 3, 3)
    correlation = correlate(weight[None])
    half = correlation.entries.abs().sum(0)[0]
    total = half + half.T - correlation.entries[0, 0].abs()
    scaled = weight / total.sum(1).sqrt()[:, None, None]
    bound, source = convolution_norm_upper(scaled)
    assert bound <= 1 + 1e-10
    correlation = correlate(scaled[None])
    assert row_sums(correlation) <= 1 + 1e-10
    half = correlation.entries.abs().sum(0)[0]
    assert float((half + half.T - correlation.entries[0, 0].abs()).sum(1).max()) > 1.01
    # The other side of a square kernel.
    weight = draw(6, 6, 3)
    half = correlate(weight.transpose(0, 1)[None, ..., None]).entries.abs()
    total = (half.sum(0) + half[1:].sum(0).mT)[0].sum(1)
    bound, source = convolution_norm_upper(weight / total.sqrt()[:, None, None], seconds=5e-5)
    assert bound <= 1 + 1e-10 and source == "rows"


def test_a_single_tap_is_its_matrix():
    weight = draw(5, 7, 1, 1)
    true = float(torch.linalg.svdvals(weight[..., 0, 0])[0])
    assert true < convolution_norm_upper(weight)[0] < true * (1 + 1e-10)
    patches = draw(4, 3, 2, 2)
    true = float(torch.linalg.svdvals(patches.flatten(1))[0])
    assert true < convolution_norm_upper(patches, (2, 2))[0] < true * (1 + 1e-10)
    assert true < convolution_norm_upper(patches, (5, 3))[0] < true * (1 + 1e-10)


@pytest.mark.parametrize("power", [-320, -200, -30, 30, 200, 300])
def test_any_scale(power):
    weight = draw(3, 2, 3, 3)
    scaled = weight * 10.0**power
    bound, plain = convolution_norm_upper(scaled)[0], convolution_norm_upper(weight)[0]
    assert bound >= 2.0**-1000 and bound == pytest.approx(max(plain * 10.0**power, 2.0**-1000), rel=1e-12)


def test_what_is_not_known_is_infinite_and_zero_is_zero():
    assert convolution_norm_upper(torch.zeros(2, 2, 3, 3))[0] == 0
    assert convolution_norm_upper(torch.zeros(2, 2, 3, 3), roundings=1)[0] == 2.0**-1000
    for value in (math.nan, math.inf):
        assert convolution_norm_upper(torch.tensor([[[1.0, value]]]))[0] == math.inf
    assert convolution_norm_upper(torch.full((4, 4, 3, 3), 1.7e308, dtype=torch.float64))[0] == math.inf


def test_what_lapack_says_is_a_candidate_alone(monkeypatch):
    weight, eigvalsh = draw(4, 4, 3, 3), torch.linalg.eigvalsh
    honest = parts(weight, (1, 1), (1, 1), 1)[2]

    def fails(matrices):
        raise torch.linalg.LinAlgError("no convergence")

    answers = {
        "small": lambda m: eigvalsh(m) * 0.9,
        "none": lambda m: eigvalsh(m) * 0.0,
        "NaN": lambda m: eigvalsh(m) * math.nan,
        "failure": fails,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.linalg, "eigvalsh", answer)
        assert parts(weight, (1, 1), (1, 1), 1)[2] > honest * (1 - 1e-12), name


def _short(monkeypatch, relative, declared):
    """Make the self-correlation too small by a relative error, declared as γ of its terms or not."""
    honest = correlate

    def wrong(kernel):
        found = honest(kernel)
        terms = int(1.1 * relative / 2.0**-53) if declared else found.terms
        assert not declared or gamma(terms) > relative
        return _correlation.Correlation(found.offsets, found.entries * (1 - relative), terms, found.size)

    monkeypatch.setattr(symbol, "correlate", wrong)


def test_the_error_of_products_is_in_the_bound(monkeypatch):
    """On an orthogonal kernel, where nothing else is left over."""
    weight = _turns(6)
    for declared in (True, False):
        _short(monkeypatch, 1e-7, declared)
        assert (convolution_norm_upper(weight)[0] > 1 - 1e-12) == declared


def test_rounded_entries_are_allowed_for():
    weight = _turns(4)
    for seed in range(10):
        signs = torch.tensor(np.random.default_rng(seed).choice([-1.0, 1.0], weight.shape))
        stored = weight * (1 + 2.0**-53 * signs)
        assert convolution_norm_upper(stored, roundings=1)[0] > 1 + 4 * 2.0**-53


@pytest.mark.parametrize("mistake", ["no correction", "one axis", "stride", "half of the offsets", "grid of the map"])
def test_mistakes_are_below_the_norm_of_some_map(mistake, monkeypatch):
    """Each leaves a bound that the explicit matrix of some map refutes."""
    size, stride, padding = (3 if mistake == "grid of the map" else 150), 1 + (mistake == "stride"), 4
    lines = [draw(1, 1, 5, seed=seed) for seed in range(12)]
    lines.append(torch.tensor([[[1.0, 0.0, 0.0, 0.0, -1.0]]], dtype=torch.float64))  # 2 − 2cos 4θ, between frequencies
    truth = [on_a_map(line, [size], [stride], [padding] * 2, [1], 1) for line in lines]
    if mistake == "grid of the map":
        found = [float(torch.fft.fft(line[0, 0, :3]).abs().amax()) for line in lines]
    else:
        if mistake == "no correction":
            monkeypatch.setattr(_grid.math, "cos", lambda x: 1.0)
        elif mistake == "one axis":  # the norm of a Kronecker product is the product
            truth = [true**2 for true in truth]
            lines = [line[..., None] * line[..., None, :] for line in lines]
            monkeypatch.setattr(_grid.math, "prod", lambda factors: next(iter(factors)))
        elif mistake == "stride":
            lines, stride = [line[..., ::2] for line in lines], 1
        else:
            monkeypatch.setitem(globals(), "correlate", _half)
        found = [parts(line, (), (), 1, 3)[2] for line in lines]
    assert any(true > bound * (1 + 1e-9) for true, bound in zip(truth, found, strict=True))


def _half(kernel):
    whole = _correlation.correlate(kernel)
    kept = len(whole.entries) // 2
    return _correlation.Correlation(whole.offsets[:kept], whole.entries[:kept], whole.terms, whole.size)


def test_a_grid_too_coarse_for_its_symbol_is_refused():
    with pytest.raises(AssertionError):
        grid_maximum(correlate(draw(1, 1, 1, 5, 1)), (8, 1))


def test_time_buys_tightness_and_nothing_is_refused():
    shape = (1, 64, 64, 3, 3)
    limits = (1e-9, 0.02, 0.1, 0.5, 2.0, 60.0)
    plans = [plan(shape, seconds) for seconds in limits]
    assert [one.source for one in plans] == ["sums", "rows", "grid", "grid", "grid", "grid"]
    assert all(one.seconds <= max(limit, 1e-3) for one, limit in zip(plans, limits, strict=True))
    assert [one.counts[0] for one in plans[2:]] == [16, 32, 64, 128]
    assert plan((1, 4096, 4096, 3, 3), 10.0).source == "sums"
    assert plan((1, 2, 2, 40000, 40000), 10.0).source == "sums"
    weight = draw(16, 16, 3, 3)
    bounds = [convolution_norm_upper(weight, seconds=seconds)[0] for seconds in (1e-9, 4e-3, 1.0)]
    assert bounds == sorted(bounds, reverse=True)

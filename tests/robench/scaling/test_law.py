"""The law against values that were drawn from known ones, and against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robench.metrics import clopper_pearson
from robench.scaling import law

SIZES = [100 * 2**k for k in range(9)]
X = np.log2(SIZES) - math.log2(100)


def drawn(true: np.ndarray, seed: int, noise: float = 0.004, seeds: int = 5) -> np.ndarray:
    """Values around `true`, with a height of its own for each seed."""
    generator = np.random.default_rng(seed)
    height = generator.normal(0, 0.003, (1, seeds))
    return np.clip(true[:, None] + height + generator.normal(0, noise, (len(true), seeds)), 0, 1)


def stick(bend: float, before: float = 0.06, after: float = 0.005) -> np.ndarray:
    return 0.4 + before * np.minimum(X, bend) + after * np.maximum(0, X - bend)


def test_exact_values_give_the_law_exactly() -> None:
    found = law(SIZES, np.repeat(stick(3.5)[:, None], 2, 1), 10**9)
    assert found.bend is not None
    assert found.bend.n == pytest.approx(100 * 2**3.5, rel=2e-3)
    assert found.bend.before.value == pytest.approx(0.06, abs=1e-4)
    assert found.bend.after.value == pytest.approx(0.005, abs=1e-4)
    assert found.saturates
    assert [gain.per_doubling for gain in found.gains] == pytest.approx([0.06] * 3 + [0.0325] + [0.005] * 4)
    assert found.needed(0.66).n == pytest.approx(100 * 2 ** (3.5 + (0.66 - 0.61) / 0.005), rel=0.02)


def test_the_intervals_hold_what_they_say() -> None:
    """Of 60 draws each, 95 % intervals: fewer than 51 hits have a chance of 1e-4 where they hold."""
    bend = before = after = line = target = bends = 0
    for seed in range(60):
        found = law(SIZES, drawn(stick(4.3), seed), 10**7).bend
        assert found is not None
        assert found.before.interval is not None and found.after.interval is not None
        bend += found.interval[0] <= 100 * 2**4.3 <= found.interval[1]
        before += found.before.interval[0] <= 0.06 <= found.before.interval[1]
        after += found.after.interval[0] <= 0.005 <= found.after.interval[1]
        straight = law(SIZES, drawn(0.4 + 0.05 * X, seed), 10**7)
        bends += straight.bend is not None
        assert straight.overall.interval is not None
        line += straight.overall.interval[0] <= 0.05 <= straight.overall.interval[1]
        ends = straight.needed(0.9).interval
        target += ends[0] <= 100 * 2**10 <= ends[1]
    assert min(bend, before, after, line) >= 51
    assert target >= 48  # a line that bends by chance is extrapolated from its last part
    assert bends <= 9  # 5 % of 60 are 3; more than 9 have a chance of 1e-3


def test_one_seed_has_its_classifiers_interval_and_no_interval_of_a_gain() -> None:
    found = law([10, 20, 40], [[0.5], [0.625], [0.7]], 40)
    assert found.levels[1].interval == clopper_pearson(25, 40, 0.95)
    assert [gain.interval for gain in found.gains] == [None, None]
    assert found.overall.interval is not None  # of the scatter around the line


def test_gains_are_paired_by_seed() -> None:
    """Seeds that differ by much but gain the same: the interval of the gain has no width."""
    found = law([10, 20], [[0.2, 0.5, 0.8], [0.3, 0.6, 0.9]], 1000)
    assert found.gains[0].interval == pytest.approx((0.1, 0.1))
    level = found.levels[0]
    half = math.sqrt(stats.t.ppf(0.975, 2) ** 2 * 0.09 / 3 + 1.959964**2 * (502 / 1004) * (502 / 1004) / 1004)
    assert level.interval == pytest.approx((max(0.0, 0.5 - half), min(1.0, 0.5 + half)))


def test_needed_follows_fieller() -> None:
    """Both ends of the interval are where the target meets the band of the mean line."""
    y = drawn(0.4 + 0.05 * X, 3)[:, :4]
    found = law(SIZES, y, 2000)
    assert found.bend is None
    needed = found.needed(0.85)
    u = X - X.mean()
    slopes, heights = u @ y / (u @ u), y.mean(0)
    p = (heights.mean() * 2000 + 2) / 2004

    def band(x: float) -> float:
        spread = float(np.var(heights + slopes * (x - X.mean()), ddof=1)) / 4
        return float(stats.t.ppf(0.975, 3)) * math.sqrt(spread + p * (1 - p) / 2004)

    for end, sign in ((needed.interval[0], 1), (needed.interval[1], -1)):
        x = math.log2(end / 100)
        mean = heights.mean() + slopes.mean() * (x - X.mean())
        assert mean + sign * band(x) == pytest.approx(0.85, abs=1e-6)
    assert needed.beyond == pytest.approx(needed.n / SIZES[-1])
    assert "no line rises for ever" in needed.warning or not math.isfinite(needed.interval[1])


def test_what_does_not_rise_is_never_extrapolated_to_an_end() -> None:
    flat = law(SIZES, drawn(np.full(9, 0.7), 1, noise=0.01), 500)
    needed = flat.needed(0.9)
    assert needed.interval[1] == math.inf
    assert "never" in needed.warning
    falling = law(SIZES, drawn(0.7 - 0.02 * X, 2), 500).needed(0.9)
    assert falling.n == math.inf


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_law_is_within_reason(data: st.DataObject) -> None:
    k, seeds = data.draw(st.integers(2, 7)), data.draw(st.integers(1, 4))
    n = data.draw(st.integers(1, 200))
    hits = data.draw(st.lists(st.lists(st.integers(0, n), min_size=seeds, max_size=seeds), min_size=k, max_size=k))
    sizes = sorted(data.draw(st.sets(st.integers(1, 10**6), min_size=k, max_size=k)))
    found = law(sizes, np.array(hits) / n, n)
    for level in found.levels:
        assert 0 <= level.interval[0] <= level.mean + 1e-12 and level.mean <= level.interval[1] + 1e-12 <= 1 + 1e-11
    if found.bend is not None:
        assert sizes[1] * (1 - 1e-9) <= found.bend.interval[0] <= found.bend.n <= found.bend.interval[1]
        assert found.bend.interval[1] <= sizes[-2] * (1 + 1e-9)
        assert 0 < found.bend.p <= 0.05
    needed = found.needed(0.5)
    assert 1 <= needed.interval[0] <= needed.interval[1]


@pytest.mark.parametrize(
    ("sizes", "values", "samples"),
    [([10], [[0.5]], 10), ([10, 20], [[0.5], [1.5]], 10), ([20, 10], [[0.5], [0.6]], 10), ([10, 20], [[], []], 10)],
)
def test_what_is_no_curve_is_refused(sizes: list[int], values: list[list[float]], samples: int) -> None:
    with pytest.raises(ValueError, match=r"accuracies|values"):
        law(sizes, values, samples)


@pytest.mark.parametrize("target", [0.0, 1.0, -1.0, math.nan])
def test_a_target_is_an_accuracy(target: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        law([10, 20], [[0.5], [0.6]], 10).needed(target)

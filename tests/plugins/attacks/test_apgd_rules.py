"""Auto-PGD's rules against values worked out by hand and a loop over one run, written here."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from robench_plugins.attacks.apgd_rules import Halving, Thinning, checkpoints, radii, thinning_checkpoints


@pytest.mark.parametrize(
    ("steps", "marks"),
    [
        # .22 .41 .57 .70 .80 .87 .93 .99 of 100, as in the paper and in the authors' code.
        (100, [22, 41, 57, 70, 80, 87, 93, 99]),
        (50, [11, 21, 29, 35, 40, 44, 47]),
        (20, [5, 9, 12, 14, 16, 18, 19]),
        (10, [3, 5, 6, 7, 8, 9]),
        (2, [1]),
        (1, []),
        (1000, [220, 410, 570, 700, 800, 870, 930, 990]),
    ],
)
def test_checkpoints_by_hand(steps, marks):
    assert checkpoints(steps) == marks


@pytest.mark.parametrize("steps", [*range(1, 120), 997])
def test_checkpoints_follow_the_recursion(steps):
    """p_{j+1} = p_j + max(p_j − p_{j−1} − .03, .06) in exact fractions."""
    before, share, marks = Fraction(0), Fraction(22, 100), set()
    while math.ceil(share * steps) < steps:
        marks.add(math.ceil(share * steps))
        before, share = share, share + max(share - before - Fraction(3, 100), Fraction(6, 100))
    assert checkpoints(steps) == sorted(marks)


def test_sparsity_is_looked_at_every_four_percent():
    assert thinning_checkpoints(100) == list(range(4, 100, 4))
    assert thinning_checkpoints(30) == list(range(1, 30))
    assert thinning_checkpoints(50) == list(range(2, 50, 2))
    assert thinning_checkpoints(1) == []


def test_radii_shrink_from_three_eps_in_30_30_and_40_percent():
    assert radii(100) == [(3.0, 30), (2.0, 30), (1.0, 40)]
    assert radii(25) == [(3.0, 7), (2.0, 7), (1.0, 11)]
    assert radii(3) == [(1.0, 3)]
    assert all(sum(count for _, count in radii(n)) == n for n in range(1, 50))


def halving(losses, marks, rho=0.75):
    """Feed loss traces [rows][steps + 1] to the rule; return (mark, row) of each halving, and the sizes."""
    trace = torch.tensor(losses, dtype=torch.float64)
    rule, best, halved, before = Halving.begin(2.0, trace[:, 0]), trace[:, 0], [], 0
    for step in range(1, trace.shape[1]):
        rule.note(trace[:, step] > trace[:, step - 1])
        best = torch.maximum(best, trace[:, step])
        if step in marks:
            back = rule.revise(step - before, rho, best)
            halved += [(step, row) for row in back.nonzero()[:, 0].tolist()]
            before = step
    return halved, rule.size.tolist()


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        # Rises throughout: never.
        ([0, 1, 2, 3, 4, 5, 6, 7, 8], []),
        # 3 of 4 rise: that is not fewer than .75 of them.
        ([0, 1, 2, 1.5, 4, 5, 4.9, 7, 8], []),
        # 2 of 4 rise at each checkpoint: condition 1, twice.
        ([0, 1, 2, 1, 0, 3, 4, 3, 2], [4, 8]),
        # Rises in 3 of 4, but from a fall so deep that the best stays: condition 2 at the second checkpoint alone.
        ([0, 1, 2, 3, 9, 1, 2, 3, 4], [8]),
        # Condition 1 at the first; at the second 3 rises without a new best do not count, as the step is new.
        ([5, 4, 3, 2, 1, 0, 1, 2, 3], [4]),
        # Losses that are no numbers (−inf) count neither as rises nor as a best.
        ([-math.inf] * 9, [4, 8]),
    ],
)
def test_halving_on_crafted_traces(trace, expected):
    halved, sizes = halving([trace], (4, 8))
    assert halved == [(mark, 0) for mark in expected]
    assert sizes == [2.0 / 2 ** len(expected)]


def test_a_step_kept_once_without_progress_is_halved_at_the_third_checkpoint():
    """Condition 2 looks one checkpoint back: halved at 4, spared at 8 (just halved), due at 12."""
    trace = [9, 5, 6, 5, 6, 0, 1, 2, 3, 0, 1, 2, 3]
    assert halving([trace], (4, 8, 12))[0] == [(4, 0), (12, 0)]


def test_halving_equals_the_conditions_as_printed_row_by_row():
    generator = torch.Generator().manual_seed(0)
    traces = (torch.randn(200, 101, generator=generator).cumsum(1) + torch.linspace(0, 60, 101)).round().tolist()
    marks = [22, 41, 57, 70, 80, 87, 93, 99]
    halved, sizes = halving(traces, marks)
    expected, counts = [], [0] * 200
    for row, f in enumerate(traces):
        was_halved, best_then = False, f[0]
        for last, mark in zip([0, *marks], marks, strict=False):
            rises = sum(f[i + 1] > f[i] for i in range(last, mark))
            best = max(f[: mark + 1])
            was_halved = rises < 0.75 * (mark - last) or (not was_halved and best == best_then)
            best_then = best
            expected += [(mark, row)] * was_halved
            counts[row] += was_halved
    assert sorted(halved) == sorted(expected)
    assert 200 < len(expected) < 1500
    assert sizes == [2.0 / 2**count for count in counts]


def test_thinning_by_hand():
    """64 coordinates, ε-steps of size 1; the best points change 40, 61 and 60 coordinates at the first checkpoint."""
    rule = Thinning.begin(1.0, torch.tensor([64, 64, 64]), 64, informed=False)
    assert rule.moved.tolist() == [13, 13, 13]  # .2 · 64 = 12.8
    assert rule.revise(torch.tensor([40, 61, 60])).tolist() == [True, False, True]  # 61/64 = .953, 60/64 = .9375
    assert rule.moved.tolist() == [26, 40, 40]  # 40/1.5 = 26.7, 61/1.5 = 40.7
    assert rule.size.tolist() == pytest.approx([1, 1 / 1.5, 1])
    assert rule.revise(torch.tensor([38, 57, 90])).tolist() == [False, True, False]  # 38/40 = .95 is not below
    assert rule.size.tolist() == pytest.approx([1 / 1.5, 1, 1 / 1.5])
    for _ in range(7):
        assert not rule.revise(rule.changed).any()
    assert rule.size.tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert rule.revise(torch.tensor([0, 57, 57])).tolist() == [True, False, True]
    assert rule.moved.tolist() == [1, 38, 38]
    assert not rule.revise(torch.tensor([0, 57, 57])).any()


def test_thinning_after_a_larger_ball_starts_from_what_that_changed():
    rule = Thinning.begin(1.0, torch.tensor([30, 2, 0]), 64, informed=True)
    assert rule.moved.tolist() == [20, 1, 1]
    assert rule.revise(torch.tensor([28, 2, 0])).tolist() == [True, False, False]

"""Inner bounds by branch and bound, and networks without the neurons that are off."""

import numpy as np
import pytest
import torch

from oracles.inner_bounds import crossing, inner_complaint, known_of, overflowing, slack
from oracles.linear_bounds import step_values
from oracles.mutants import mutate
from robench_plugins.verify._engine import narrow
from robench_plugins.verify._engine.backward import lower_bounds
from robench_plugins.verify._engine.bounds import refined
from robench_plugins.verify._engine.slopes import Schedule
from robench_plugins.verify._forms import label_forms
from robench_plugins.verify._tree import inner


@pytest.mark.parametrize("rounds", [1, 6, 40])
def test_no_value_of_a_grid_is_outside(rounds):
    for seed in range(20):
        assert inner_complaint(known_of(seed), rounds) is None


def test_deciding_signs_takes_most_of_what_slopes_leave():
    """The relaxation's gap: nothing of it is left where every sign is decided and the climb is at its end."""
    before, after = [], []
    for seed in range(20):
        known = known_of(seed)
        before.append(slack(refined(known, Schedule())))
        after.append(slack(inner.deepened(known, 64, 1e9)))
    assert np.mean(before) > 0.02
    assert np.mean(after) < 0.15 * np.mean(before)


def test_hardly_any_time_changes_little():
    known = known_of(3)
    plain, made = narrow.narrowed(refined(known, Schedule())), inner.deepened(known, 64, 0.0)
    for position, sides in plain.inputs.items():
        for side, other in zip(sides, made.inputs[position], strict=True):
            assert torch.allclose(side, other, atol=1e-4)


def test_a_network_without_its_dead_neurons_has_the_same_bounds():
    smaller = 0
    for seed in range(30):
        known = known_of(seed)
        cut = narrow.narrowed(known)
        classes = known.program.steps[-1].shape[0]
        rows = label_forms(torch.zeros(2, dtype=torch.int64), classes).rows(known.program.last)
        bounds = [
            lower_bounds(one.program, one.region, one.lines, rows, errors=one.errors).bound for one in (known, cut)
        ]
        assert torch.allclose(*bounds, rtol=1e-9)
        smaller += sum(
            step.shape != other.shape for step, other in zip(known.program.steps, cut.program.steps, strict=True)
        )
    assert smaller > 30


@pytest.mark.parametrize("rounds", [1, 4, 16])
def test_pieces_that_were_dropped_still_count(rounds):
    """A piece that float32 leaves open may be proven far above 0 in float64; its sibling was dropped at just above."""
    made = inner.deepened(overflowing(), rounds, 1e9)
    position = made.program.activations[-1]
    values = step_values(made.program, torch.tensor([[-1.0, -1.0], [1.0, -1.0]], dtype=torch.float64))
    reached = values[made.program.steps[position].inputs[0]][:, 0].min()
    assert made.inputs[position][0][0, 0] <= reached


def test_activations_between_another_and_its_input():
    for seed in range(6):
        assert inner_complaint(crossing(seed), 8) is None


MISTAKES = {
    "the best piece instead of the worst": (inner._branched, 'tree.proven(pool), "amin"', 'tree.proven(pool), "amax"'),
    "the other side": (inner._trees, "1.0 - 2.0 * side", "1.0 + 0.0 * side"),
    "upper bounds with the wrong sign": (inner._branched, "-found[1].reshape", "found[1].reshape"),
    "pieces that were dropped taken for more": (inner._branched, "torch.zeros_like(", "torch.ones_like("),
    "pieces that wait are dropped": (inner._round, "rest[chosen] = False", "rest[:] = False"),
    "bounds of other samples": (inner._trees, "known.select(sample[:1])", "known.select(sample[:1] * 0)"),
    "neurons that are on are dropped": (narrow._awake, "line.unstable | (line.lower_slope != 0)", "line.unstable"),
    "neurons that one sample needs are dropped": (narrow._awake, "!= 0)).any(0)", "!= 0)).all(0)"),
    "weights of other neurons": (narrow._cut, "cut[step.inputs[0]]]", "cut[step.inputs[0]] * 0]"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_seen(name, monkeypatch):
    mutate(monkeypatch, *MISTAKES[name])
    assert any(inner_complaint(known_of(seed), rounds) for seed in range(20) for rounds in (6, 40))

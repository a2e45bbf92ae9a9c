"""Bounds of inner neurons against a dense grid of a network's two inputs: never within its values, and near them."""

from __future__ import annotations

import numpy as np
import torch

from oracles.enumeration import random_net
from oracles.linear_bounds import step_values
from oracles.random_graphs import Draft, mlp
from robench.threat import Domain, Threat
from robench_plugins.verify._engine.bounds import Bounded, bounded, refined
from robench_plugins.verify._engine.narrow import narrowed
from robench_plugins.verify._engine.region import region_of
from robench_plugins.verify._engine.slopes import Schedule
from robench_plugins.verify._tree.inner import deepened

__all__ = ["crossing", "inner_complaint", "known_of", "overflowing", "slack"]

SIZES = ((2, 6, 5, 4, 3), (2, 8, 6, 2), (2, 5, 5, 5, 5, 2))


def known_of(seed: int, samples: int = 2) -> Bounded:
    """Return CROWN's bounds of a random ReLU network, with neurons that are off, around random points."""
    rng = np.random.default_rng(seed)
    weights, biases = random_net(rng, SIZES[seed % len(SIZES)])
    biases[0][0] -= 4.0
    x = torch.tensor(rng.random((samples, 2)))
    threat = Threat("linf", float(rng.uniform(0.05, 0.5)), Domain())
    return bounded(mlp(weights, biases), region_of(x, threat), "crown")


def overflowing() -> Bounded:
    """Return bounds of a network of which float32 can prove one half and not the other: 1e-40 vanishes, 1e20 meets it.

    The third layer's first input is at least .13 on the half that float32 proves, .8 on the other.
    """
    first = np.array([[1e-40, 0], [1, 0], [0, 1]])
    second = np.array([[1e20, 0, 0], [0, 1, 0], [0, 0, 1]])
    third = np.array([[-0.9e20, 1, 0.2], [0, 0, 0]])
    biases = [np.array([3e-40, 3, 3]), np.array([-3e-20, 0, -2.95]), np.array([1.13 - 3, 1]), np.zeros(2)]
    threat = Threat("linf", 1.0, Domain(-1.0, 1.0))
    graph = mlp([first, second, third, np.eye(2)], biases)
    return bounded(graph, region_of(torch.zeros(1, 2, dtype=torch.float64), threat), "crown")


def crossing(seed: int) -> Bounded:
    """Return bounds of a network in which another activation's input is computed before the first activation."""
    rng = np.random.default_rng(seed)
    draft = Draft((2,), rng)
    draft.linear(6)
    first = draft.end
    weight = {"weight": torch.tensor(rng.normal(size=(6, 2))), "bias": torch.tensor(rng.normal(size=6) * 0.2)}
    draft.add("linear", 0, constants=weight)
    second = draft.end
    draft.add("relu", first)
    one = draft.end
    draft.add("relu", second)
    draft.add("concat", one, draft.end, axis=0)
    graph = draft.linear(6).add("relu").linear(3).graph()
    return bounded(graph, region_of(torch.tensor(rng.random((2, 2))), Threat("linf", 0.3, Domain())), "crown")


def inner_complaint(known: Bounded, rounds: int = 64) -> str | None:
    """Return what is wrong with better bounds: another function, some value outside, or looser than without signs."""
    plain, made = narrowed(refined(known, Schedule())), deepened(known, rounds, 1e9)
    for sample in range(2):
        points = _grid(known, sample)
        whole, values = step_values(known.program, points), step_values(made.program, points)
        if not torch.allclose(whole[-1], values[-1], atol=1e-12):
            return f"sample {sample}: another function"
        for position, (lower, upper) in made.inputs.items():
            reached = values[made.program.steps[position].inputs[0]]
            least, most = reached.amin(0), reached.amax(0)
            told = f"sample {sample}, step {position}"
            if bool((lower[sample] > least + 1e-12).any() or (upper[sample] < most - 1e-12).any()):
                return f"{told}: {lower[sample].tolist()} to {upper[sample].tolist()}, reached {least} to {most}"
            if bool((upper[sample] > plain.inputs[position][1][sample].amax() + 1e-9).any()):
                return f"{told}: looser than without branching"
    return None


def slack(known: Bounded) -> float:
    """Return the mean distance of the bounds of open neurons from the grid's extremes, in units of those."""
    found = []
    for sample in range(len(known.region)):
        values = step_values(known.program, _grid(known, sample))
        for position, (lower, upper) in known.inputs.items():
            reached = values[known.program.steps[position].inputs[0]]
            least, most = reached.amin(0), reached.amax(0)
            open_ = (least < 0) & (most > 0)
            wide = upper[sample] - lower[sample] - (most - least)
            found += (wide / (most - least))[open_].tolist()
    return float(np.mean(found)) if found else 0.0


def _grid(known: Bounded, sample: int) -> torch.Tensor:
    low, high = known.region.lower[sample], known.region.upper[sample]
    axes = [torch.linspace(float(low[k]), float(high[k]), 161, dtype=torch.float64) for k in range(2)]
    return torch.cartesian_prod(*axes).clamp(low, high)

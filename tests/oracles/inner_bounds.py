"""Bounds of inner neurons against a dense grid of a network's two inputs: never within its values, and near them."""

from __future__ import annotations

import numpy as np
import torch

from oracles.enumeration import random_net
from oracles.linear_bounds import step_values
from oracles.random_graphs import mlp
from robench.threat import Domain, Threat
from robench_plugins.verify._engine.bounds import Bounded, bounded, refined
from robench_plugins.verify._engine.narrow import narrowed
from robench_plugins.verify._engine.region import region_of
from robench_plugins.verify._engine.slopes import Schedule
from robench_plugins.verify._tree.inner import deepened

__all__ = ["inner_complaint", "known_of", "slack"]

SIZES = ((2, 6, 5, 4, 3), (2, 8, 6, 2), (2, 5, 5, 5, 5, 2))


def known_of(seed: int, samples: int = 2) -> Bounded:
    """Return CROWN's bounds of a random ReLU network, with neurons that are off, around random points."""
    rng = np.random.default_rng(seed)
    weights, biases = random_net(rng, SIZES[seed % len(SIZES)])
    biases[0][0] -= 4.0
    x = torch.tensor(rng.random((samples, 2)))
    threat = Threat("linf", float(rng.uniform(0.05, 0.5)), Domain())
    return bounded(mlp(weights, biases), region_of(x, threat), "crown")


def inner_complaint(seed: int, rounds: int = 64) -> str | None:
    """Return what is wrong with better bounds: another function, some value outside, or looser than without signs."""
    known = known_of(seed)
    plain, made = narrowed(refined(known, Schedule())), deepened(known, rounds, 1e9)
    for sample in range(2):
        points = _grid(known, sample)
        whole, values = step_values(known.program, points), step_values(made.program, points)
        if not torch.allclose(whole[-1], values[-1], atol=1e-12):
            return f"seed {seed}, sample {sample}: another function"
        for position, (lower, upper) in made.inputs.items():
            reached = values[made.program.steps[position].inputs[0]]
            least, most = reached.amin(0), reached.amax(0)
            told = f"seed {seed}, sample {sample}, step {position}"
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

"""The triangle relaxation of a ReLU network, written down once more: dense, in every variable, for scipy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linprog

__all__ = ["triangle_minimum"]


def triangle_minimum(weights, biases, inputs: Sequence[tuple[np.ndarray, np.ndarray]], low, high, form) -> float:
    """Return min form · f over the box [low, high], each hidden input within `inputs` [(l, u), …] (Ehlers 2017).

    Variables are x, then pre-activation and activation of every layer; inf where nothing is feasible.
    """
    sizes = [len(low), *(size for weight in weights[:-1] for size in (len(weight), len(weight))), len(weights[-1])]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    count = starts[-1]
    equal, equals, below, limits = [], [], [], []
    bounds = [(a, b) for a, b in zip(low, high, strict=True)] + [(None, None)] * (count - len(low))

    def row(**entries):
        made = np.zeros(count)
        for name, value in entries.items():
            made[int(name[1:])] = value
        return made

    source = starts[0]
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        here = starts[1 + 2 * layer]
        for i in range(len(weight)):
            made = row(**{f"v{here + i}": 1.0})
            made[source : source + weight.shape[1]] = -weight[i]
            equal.append(made)
            equals.append(bias[i])
        if layer == len(weights) - 1:
            break
        after = starts[2 + 2 * layer]
        for i, (l, u) in enumerate(zip(*inputs[layer], strict=True)):  # noqa: E741
            x, z = f"v{here + i}", f"v{after + i}"
            bounds[here + i] = (l, u)
            if u <= 0:
                bounds[after + i] = (0, 0)
                continue
            below += [row(**{x: 1.0, z: -1.0}), row(**{z: -1.0})]
            limits += [0.0, 0.0]
            slope = 1.0 if l >= 0 else u / (u - l)
            below.append(row(**{z: 1.0, x: -slope}))
            limits.append(0.0 if l >= 0 else -slope * l)
        source = after
    cost = np.zeros(count)
    cost[starts[-2] :] = form
    found = linprog(cost, np.array(below) if below else None, limits or None, np.array(equal), equals, bounds)
    if found.status == 2:
        return np.inf
    assert found.status == 0, found.message
    return float(found.fun)

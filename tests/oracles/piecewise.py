"""Small random networks of piecewise linear operators, points, labels, threats; every value on the way."""

import numpy as np
import torch

from oracles.random_graphs import random_graph, step_names
from robench.threat import Domain, Threat
from robench_plugins.verify._engine.bounds import bounded
from robench_plugins.verify._engine.region import region_of
from robench_plugins.verify._forms import label_forms

PIECEWISE = [name for name in step_names() if name not in ("sigmoid", "tanh")]
SPACE = Domain.unbounded()


def case(seed, norm="linf", samples=2):
    """A random graph of piecewise linear operators, points, labels and a threat."""
    rng = np.random.default_rng(seed)
    graph = random_graph(list(rng.choice(PIECEWISE, rng.integers(1, 7))), rng)
    x, y = torch.tensor(rng.normal(size=(samples, *graph.input_shape))), torch.tensor(rng.integers(0, 3, samples))
    return graph, x, y, Threat(norm, float(rng.choice([0.05, 0.3, 1.0])), SPACE)


def started(graph, x, y, threat, method="crown"):
    known = bounded(graph, region_of(x, threat), method)
    return known, label_forms(y, graph.classes).rows(known.program.last)


def values(program, x):
    made = [x]
    for step in program.steps[1:]:
        made.append(step.forward(*(made[source] for source in step.inputs)))
    return made

"""Small random networks of piecewise linear operators, points, labels, threats; every value on the way."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from oracles.random_graphs import random_graph, step_names
from robench.graph import GraphClassifier
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


@contextmanager
def strange_mode():
    """What a caller may have set: subnormals flushed, another default dtype, inference mode, autocast."""
    torch.set_flush_denormal(True)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_default_dtype(torch.float32)


def check_modes(certifier):
    """Whether the certifier answers the same whatever mode the caller is in, about tensors made there."""
    for seed in (1, 3, 6, 8):
        graph, x, y, threat = case(seed)
        classifier = GraphClassifier(graph, dtype=x.dtype)
        expected = certifier.certify(classifier, x, y, threat, None)
        with strange_mode():
            found = certifier.certify(classifier, x + 0, y + 0, threat, None)
        assert found.status == expected.status, seed
        for one, other in zip(found.detail, expected.detail, strict=True):
            assert one.keys() == other.keys(), seed
            for key, value in other.items():
                assert one[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-9, abs=1e-9)), seed

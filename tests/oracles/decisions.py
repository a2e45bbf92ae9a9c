"""What branch and bound must decide: known by enumeration of activation patterns, by construction, or on a grid.

Each function runs a random case and returns None, or what was decided wrongly.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from oracles.enumeration import exact_radius, random_net
from oracles.random_graphs import Draft, evaluate, mlp
from oracles.rational import margin, rational_logits
from robench.contracts import Certificates
from robench.graph import Graph, GraphClassifier
from robench.regions import Condition, Region
from robench.streams import Stream
from robench.threat import NORMS, Domain, Threat
from robench_plugins.verify.bab import BaB

__all__ = ["affine", "decide", "enumerated", "gridded", "smooth", "tied", "ties", "witness_complaint"]

SIZES = ((2, 5, 3), (3, 6, 5, 3), (4, 6, 6, 3), (2, 4, 4, 4, 2))
DOMAIN = Domain()
SLACK = {"linf": 1e-6, "l2": 1e-2, "l1": 1e-6}
"""How near to the exact radius ε may be asked: in l2 a piece's bound is the limit of a climb."""


def decide(graph: Graph, x: Tensor, y: Tensor, threat: Threat, *, dtype=torch.float64, **settings) -> Certificates:
    """Return what `bab` says about `x` [B, ...] with a model in `dtype`."""
    settings = {"timeout": 20.0} | settings
    stream = Stream.for_samples(0, "bab", range(len(x)))
    return BaB(**settings).certify(GraphClassifier(graph, dtype=dtype), x.to(dtype), y, threat, stream)


def distance(norm: str, a: Tensor, b: Tensor) -> Fraction:
    """Return the exact distance in linf or l1, its square in l2."""
    steps = [abs(Fraction(p) - Fraction(q)) for p, q in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)]
    return {"linf": max, "l1": sum, "l2": lambda values: sum(value * value for value in values)}[norm](steps)


def witness_complaint(graph: Graph, x: Tensor, point: Tensor, y: int, threat: Threat) -> str | None:
    """Return None where the point is in the ball and the domain and misclassified there, in rational arithmetic."""
    assert threat.eps is not None
    eps = Fraction(threat.eps) ** (2 if threat.norm == "l2" else 1)
    if not all(threat.domain.lower <= value <= threat.domain.upper for value in point.flatten().tolist()):
        return "the point is outside the domain"
    # Distances are judged in float64: one rounding per coordinate.
    if distance(threat.norm, point, x) > eps * (1 + Fraction(4 * x.numel(), 2**52)):
        return "the point is outside the ball"
    if margin(rational_logits(graph, point), y) > 0:
        return "the point is classified right"
    return None


def enumerated(seed: int, split: str, dtype: torch.dtype = torch.float64, samples: int = 2, **settings) -> str | None:
    """Compare the answers on a tiny ReLU network with the exact radius, at ε far from it and near."""
    rng = np.random.default_rng(seed)
    norm = NORMS[seed % 3]
    weights, biases = random_net(rng, SIZES[seed % len(SIZES)])
    if seed % 5 == 0:  # dead neurons, constant ones, rows of zeros
        weights[0][0], biases[0][0] = 0.0, -1.0
        weights[0][1], biases[0][1] = 0.0, 0.5
        biases[0][2] = -5.0
    graph = mlp(weights, biases)
    x = torch.tensor(rng.random((samples, weights[0].shape[1])), dtype=torch.float32).double()
    y = evaluate(graph, x).argmax(1)
    exact = [
        exact_radius(weights, biases, x[k].numpy(), int(y[k]), norm, DOMAIN.lower, DOMAIN.upper) for k in range(samples)
    ]
    near = exact[0] if np.isfinite(exact[0]) else 0.2
    for eps in (0.1, 0.3, max(1e-3, near * (1 - 2 * SLACK[norm])), near * (1 + 2 * SLACK[norm]) + 1e-5):
        threat = Threat(norm, eps, DOMAIN)
        found = decide(graph, x, y, threat, dtype=dtype, split=split, **settings)
        for k, radius in enumerate(exact):
            if abs(radius - eps) <= SLACK[norm] * eps:
                continue
            wanted = "certified" if radius > eps else "falsified"
            told = f"seed {seed}, {norm}, ε {eps}, sample {k}: {found.status[k]} at a radius of {radius}"
            if found.status[k] != wanted:
                return f"{told} ({found.detail[k]})"
            if float(found.lower[k]) != (eps if wanted == "certified" else 0.0):
                return f"{told}, lower {float(found.lower[k])}"
            if wanted == "falsified" and (
                wrong := witness_complaint(graph, x[k], found.points[k].double(), int(y[k]), threat)
            ):
                return f"{told}, {wrong}"
    return None


def ties(seed: int) -> tuple[Graph, Tensor, Tensor, Threat]:
    """Return a network whose margin is at most 0 in the ball only where no float is, or at few of them.

    The margin is Σ |a·x − b| (each of two ReLUs) minus a number far below float32's rounding, or 0.
    """
    rng = np.random.default_rng(seed)
    count = 1 + seed % 3
    slopes = rng.integers(3, 200, count).astype(np.float64)
    kink = rng.uniform(0.4, 0.6, count)
    offsets = np.round(slopes * kink * 1024) / 1024
    first = np.zeros((2 * count, count))
    for k in range(count):
        first[2 * k, k], first[2 * k + 1, k] = slopes[k], -slopes[k]
    bias = np.repeat(offsets, 2) * np.tile([-1.0, 1.0], count)
    second = np.zeros((2, 2 * count))
    second[0] = 1.0
    lower = (0.0, 1e-9, 1e-12)[seed // 3 % 3]
    graph = mlp([first, second], [bias, np.array([0.0, lower])])
    x = torch.tensor(offsets / slopes + rng.choice([-0.05, 0.05], count))[None].float().double()
    return graph, x, torch.zeros(1, dtype=torch.int64), Threat("linf", 0.0625, Domain.unbounded())


def tied(seed: int, split: str, timeout: float = 0.3, **settings) -> str | None:
    """Ask about a network that is unsafe by a hair."""
    graph, x, y, threat = ties(seed)
    for dtype in (torch.float64, torch.float32):
        found = decide(graph, x, y, threat, dtype=dtype, split=split, timeout=timeout, **settings)
        if found.status[0] == "certified":
            return f"seed {seed}: certified by {found.detail[0]}, and a point of the ball is not classified right"
    return None


def affine(seed: int) -> str | None:
    """Ask about a sample around which every ReLU is open or shut, unsafe by less than rounding, beside another one."""
    rng = np.random.default_rng(seed)
    slope = float(rng.integers(1, 9))
    # The margin is offset − slope · (x + 10): at most 0 at one end of the ball.
    x, eps = torch.tensor([[0.3125], [-9.875]], dtype=torch.float64), 0.1 + seed / 97
    offset = slope * float(Fraction(x[0, 0].item()) + Fraction(eps) + 10)
    graph = mlp([np.ones((1, 1)), np.array([[0.0], [slope]])], [np.array([10.0]), np.array([offset, 0.0])])
    unsafe = Fraction(offset) <= Fraction(slope) * (Fraction(x[0, 0].item()) + Fraction(eps) + 10)
    threat = Threat("linf", eps, Domain.unbounded())
    found = decide(graph, x, torch.zeros(2, dtype=torch.int64), threat, split="signs", restarts=0)
    if unsafe and found.status[0] == "certified":
        return f"seed {seed}: certified by {found.detail[0]} with a margin of at most 0"
    return None if found.status[1] == "certified" else f"seed {seed}: {found.status[1]} where the margin is above 80"


def gridded(seed: int, split: str) -> str | None:
    """Ask about a random condition (rows within disjuncts) on boxes of two inputs, and compare with a dense grid."""
    rng = np.random.default_rng(seed)
    weights, biases = random_net(rng, ((2, 6, 3), (2, 5, 4, 3))[seed % 2])
    graph, count = mlp(weights, biases), 3
    centre, wide = rng.random((count, 2)), rng.uniform(0.05, 0.4, (count, 2))
    lower, upper = torch.tensor(centre - wide), torch.tensor(centre + wide)
    conditions, values, points = [], [], []
    for k in range(count):
        axes = [np.linspace(lower[k, i].item(), upper[k, i].item(), 121) for i in range(2)]
        points.append(torch.tensor(np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)))
        outputs = evaluate(graph, points[k]).numpy()
        disjuncts = []
        for _ in range(int(rng.integers(1, 4))):
            rows = rng.normal(size=(int(rng.integers(1, 4)), 3))
            # Offsets that make most rows change their sign within the box.
            forms = outputs @ rows.T
            offsets = -np.quantile(forms, rng.choice([0.0, 0.02, 0.3], len(rows)), axis=0).diagonal()
            disjuncts.append((rows, offsets + rng.choice([-0.1, 0.05, 0.2]) * forms.std(0)))
        conditions.append(Condition(tuple(disjuncts)))
        unsafe = np.stack([(outputs @ rows.T + offsets).max(1) for rows, offsets in disjuncts]).min(0)
        values.append(unsafe)
    eps = float(np.nextafter(wide.max(), 1.0) * (1 + 1e-12))
    region = Region(lower, upper, conditions)
    threat = Threat("linf", eps, Domain.unbounded(), region)
    found = decide(graph, torch.tensor(centre), torch.zeros(count, dtype=torch.int64), threat, split=split, timeout=1.0)
    for k in range(count):
        least, told = values[k].min(), f"seed {seed}, sample {k}: {found.status[k]} ({found.detail[k]})"
        one = all(len(rows) == 1 for rows, _ in conditions[k].disjuncts)
        # On a piece that is affine, one row of a disjunct must do: several together may be needed.
        if found.status[k] not in ("certified", "falsified") and abs(least) > 0.02 and (one or split == "inputs"):
            return told
        if found.status[k] == "certified" and least <= 0:
            return f"{told}, and a point of the grid reaches {least}"
        if found.status[k] == "falsified":
            point = found.points[k]
            if not bool(((point >= lower[k]) & (point <= upper[k])).all()):
                return f"{told}, at a point outside the box"
            logits = [float(value) for value in rational_logits(graph, point)]
            forms = [(rows @ logits + offsets).max() for rows, offsets in conditions[k].disjuncts]
            if min(forms) > 1e-12:
                return f"{told}, at a point where the forms are {forms}"
            if least > 0.5:
                return f"{told}, but the grid stays above {least}"
    return None


def smooth(seed: int) -> tuple[Graph, Tensor, Tensor]:
    """Return a network of sigmoid or tanh with 2 or 3 inputs, two samples and their labels."""
    rng = np.random.default_rng(seed)
    draft = Draft((2 + seed % 2,), rng)
    for _ in range(2):
        draft.linear(4).add(("sigmoid", "tanh")[seed // 2 % 2])
    graph = draft.linear(3).graph()
    x = torch.tensor(rng.random((2, *graph.input_shape)))
    return graph, x, evaluate(graph, x).argmax(1)

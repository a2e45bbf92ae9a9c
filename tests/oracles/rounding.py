"""Networks on which float64 rounds a margin that is not above 0 to one that is: nothing may certify them.

Each has cancelling terms, so that the sums err by far more than the true margin; the truth is a fraction.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch

from oracles.random_graphs import Draft
from oracles.rational import margin, rational_logits
from robench.graph import Graph

__all__ = ["FAMILIES", "traps"]


def _doubles(values) -> torch.Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float64))


def _balanced(rng: np.random.Generator, n: int, spread: int) -> np.ndarray:
    """Return terms whose exact sum is 0 and whose partial sums round: each with its negative, shuffled."""
    half = rng.normal(size=n) * 10.0 ** rng.integers(-spread, spread + 1, n)
    terms = np.concatenate([half, -half])
    rng.shuffle(terms)
    return terms


def _two(draft: Draft, row: np.ndarray, bias: float) -> Graph:
    """End in logits (row · x + bias, 0)."""
    weight = np.stack([row, np.zeros_like(row)])
    return draft.add("linear", constants={"weight": _doubles(weight), "bias": _doubles([bias, 0.0])}).graph()


def _sum(rng: np.random.Generator) -> tuple[Graph, torch.Tensor]:
    """One sum of terms that cancel."""
    row = _balanced(rng, 40, 4)
    return _two(Draft((len(row),), rng), row, 0.0), torch.ones(len(row), dtype=torch.float64)


def _product(rng: np.random.Generator) -> tuple[Graph, torch.Tensor]:
    """Two layers whose product cancels in every entry, exactly 0 as a function but for a constant below 0."""
    n, hidden = 6, 30
    half = rng.normal(size=(hidden, n))
    order = rng.permutation(2 * hidden)
    first = np.concatenate([half, half])[order]
    out = rng.normal(size=hidden) * 10.0 ** rng.integers(-3, 4, hidden)
    row = np.concatenate([out, -out])[order]
    draft = Draft((n,), rng).add("linear", constants={"weight": _doubles(first)})
    return _two(draft, row, -1e-300), _doubles(rng.normal(size=n) * 1e3)


def _branches(rng: np.random.Generator) -> tuple[Graph, torch.Tensor]:
    """Two branches that are each other's negative, their sums in another order, cancel in an addition."""
    n, hidden = 24, 12
    weight = rng.normal(size=(hidden, n)) * 10.0 ** rng.integers(-2, 3, n)
    shift = 1e4 * (1 + rng.random(hidden))  # keeps every ReLU on
    order = rng.permutation(n)
    draft = Draft((n,), rng)
    draft.add("linear", constants={"weight": _doubles(weight), "bias": _doubles(shift)}).add("relu")
    one = draft.end
    draft.add("linear", 0, constants={"weight": _doubles(np.eye(n)[order])})
    draft.add("linear", constants={"weight": _doubles(weight[:, order]), "bias": _doubles(shift)}).add("relu")
    draft.add("neg").add("add", one, draft.end)
    return _two(draft, rng.normal(size=hidden) * 1e3, -1e-300), _doubles(rng.normal(size=n))


def _exploding(rng: np.random.Generator) -> tuple[Graph, torch.Tensor]:
    """Weights of 1e100 and back: the values between are huge, the margin is not."""
    row = _balanced(rng, 20, 2)
    n = len(row)
    big = {"other": torch.full((n,), 1e100, dtype=torch.float64)}
    draft = Draft((n,), rng).add("mul", constants=big).add("relu").add("div", constants=big)
    return _two(draft, row, 0.0), torch.full((n,), 0.3, dtype=torch.float64)


def _normalised(rng: np.random.Generator) -> tuple[Graph, torch.Tensor]:
    """A batch normalisation far from its mean: what its constants were rounded by is more than the margin."""
    n = 16
    row = rng.normal(size=n)
    mean, weight = rng.normal(size=n) * 1e6, rng.normal(size=n)
    # var + eps is 1, so that the layer is weight (x − mean) + bias in fractions too; x = mean gives 0.
    constants = {"mean": mean, "var": np.full(n, 0.5), "weight": weight, "bias": np.zeros(n)}
    draft = Draft((n,), rng).add("batch_norm", constants={k: _doubles(v) for k, v in constants.items()}, eps=0.5)
    return _two(draft, row, -1e-300), _doubles(mean)


def _thin(rng: np.random.Generator) -> tuple[Graph, torch.Tensor]:
    """A deep network in which each layer is scaled to keep the margin near the smallest normal numbers."""
    row = _balanced(rng, 12, 1)
    n = len(row)
    small = {"other": torch.full((n,), 1e-150, dtype=torch.float64)}
    draft = Draft((n,), rng).add("mul", constants=small).add("relu").add("mul", constants=small)
    return _two(draft, row, 0.0), torch.full((n,), 0.3, dtype=torch.float64)


FAMILIES: dict[str, Callable[[np.random.Generator], tuple[Graph, torch.Tensor]]] = {
    "a sum": _sum,
    "a product": _product,
    "branches": _branches,
    "exploding weights": _exploding,
    "batch normalisation": _normalised,
    "thin values": _thin,
}


def traps(name: str, count: int, seed: int = 0):
    """Yield (graph, x, exact margin at x) for label 0; the exact margin is at most 0."""
    for k in range(count):
        graph, x = FAMILIES[name](np.random.default_rng([seed, k]))
        exact = margin(rational_logits(graph, x), 0)
        assert exact <= 0, (name, float(exact))
        yield graph, x, Fraction(exact)

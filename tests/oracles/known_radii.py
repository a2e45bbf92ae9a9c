"""Classifiers whose exact robust radii are known: the list that minimum-norm attacks are held to.

Linear ones in a box whose sides are near (and one without a box) come with `linear_box`; random ReLU networks with
`enumeration`, in the box [0, 1]. Enumerating takes minutes, so its radii are kept in known_radii.json, which
`python -m oracles.known_radii` writes and `tests/oracles/test_known_radii.py` derives again in part.
"""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from oracles import enumeration, linear_box
from oracles.classifiers import Function
from robench.threat import NORMS, Domain

__all__ = ["LINEAR", "RELU", "Known", "derive", "known"]

Array = npt.NDArray[np.float64]

RELU = {
    "relu-2": ((3, 8, 2), 1),
    "relu-3": ((4, 8, 3), 0),
    "relu-10": ((5, 9, 10), 0),
    "deep-2": ((6, 6, 4, 2), 1),
    "deep-3": ((3, 5, 5, 3), 5),
}
"""Layer sizes and seed: the first whose classes all occur and of whose samples at most a tenth cannot be broken."""

LINEAR = {"linear-2": (2, True), "linear-3": (3, True), "linear-10": (10, True), "linear-unbounded": (3, False)}
"""Classes, and whether the domain is [0, 1]."""

COUNT = 40
_FILE = Path(__file__).with_suffix(".json")


@dataclass(frozen=True, eq=False)
class Known:
    """A float64 classifier, correctly classified samples, their domain, and their radii [B] by norm (inf: none)."""

    classifier: Function
    x: Tensor
    y: Tensor
    domain: Domain
    radii: dict[str, Array]


@functools.cache
def known(name: str) -> Known:
    """Return an entry of `RELU` or `LINEAR`."""
    if name in LINEAR:
        return _linear(*LINEAR[name])
    weights, biases, x, y = _relu(name)
    layers = [(torch.tensor(w), torch.tensor(b)) for w, b in zip(weights, biases, strict=True)]

    def function(rows: Tensor) -> Tensor:
        for position, (weight, bias) in enumerate(layers):
            rows = rows @ weight.T.to(rows.dtype) + bias.to(rows.dtype)
            rows = rows.relu() if position + 1 < len(layers) else rows
        return rows

    stored = json.loads(_FILE.read_text())[name]
    classifier = Function(function, x.shape[1:], len(biases[-1]), torch.float64)
    radii = {norm: np.array([np.inf if r is None else r for r in stored[norm]]) for norm in NORMS}
    return Known(classifier, torch.tensor(x), torch.tensor(y), Domain(), radii)


def derive(name: str, norm: str, sample: int) -> float:
    """Return a radius of an entry of `RELU` by enumeration."""
    weights, biases, x, y = _relu(name)
    return enumeration.exact_radius(weights, biases, x[sample], int(y[sample]), norm)


def _relu(name: str) -> tuple[list[Array], list[Array], Array, npt.NDArray[np.int64]]:
    sizes, seed = RELU[name]
    rng = np.random.default_rng([seed, *sizes])
    weights, biases = enumeration.random_net(rng, sizes)
    x = rng.random((COUNT, sizes[0])).astype(np.float32).astype(np.float64)
    x[rng.random(x.shape) < 0.15] = 0.0
    x[rng.random(x.shape) < 0.1] = 1.0
    return weights, biases, x, np.array([enumeration.logits(weights, biases, row).argmax() for row in x])


def _linear(classes: int, boxed: bool) -> Known:
    rng, size = np.random.default_rng([classes, boxed]), 30
    weight = rng.normal(size=(classes, size)) * rng.lognormal(sigma=1, size=size)
    bias = rng.normal(size=classes) * 0.2
    if boxed:
        x = rng.choice([0.0, 0.01, 0.3, 0.6, 0.98, 1.0], p=[0.35, 0.1, 0.1, 0.1, 0.1, 0.25], size=(COUNT, size))
    else:
        x = rng.normal(size=(COUNT, size)) * 5
    y = (x @ weight.T + bias).argmax(1)
    domain = Domain() if boxed else Domain.unbounded()
    radii = {
        norm: np.array(
            [
                linear_box.exact_radius(weight, bias, *pair, norm, domain.lower, domain.upper)[0]
                for pair in zip(x, y, strict=True)
            ]
        )
        for norm in NORMS
    }
    w, b = torch.tensor(weight), torch.tensor(bias)
    classifier = Function(lambda rows: rows @ w.T.to(rows.dtype) + b.to(rows.dtype), (size,), classes, torch.float64)
    return Known(classifier, torch.tensor(x), torch.tensor(y), domain, radii)


def main() -> None:
    """Enumerate the radii of all of `RELU` and write them down."""
    table: dict[str, dict[str, list[float | None]]] = {}
    for name in RELU:
        found = {norm: [derive(name, norm, sample) for sample in range(COUNT)] for norm in NORMS}
        table[name] = {norm: [None if np.isinf(r) else round(r, 12) for r in radii] for norm, radii in found.items()}
        print(name, file=sys.stderr)
    _FILE.write_text(json.dumps(table, indent=0) + "\n")


if __name__ == "__main__":
    main()

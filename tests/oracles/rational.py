"""Graphs in exact rational arithmetic: the real-arithmetic logits that every enclosure has to hold.

Python fractions in object arrays, one unbatched input at a time, written from the operators' definitions alone.
sigmoid and tanh come from mpmath with 60 digits; batch normalisation needs var + eps to be the square of a double.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np

from robench.graph import Graph

__all__ = ["margin", "rational_logits"]


def rational_logits(graph: Graph, x) -> list[Fraction]:
    """Return the exact logits of `graph` at the tensor `x` [...]."""
    values = [_exact(x)]
    for node in graph.nodes[1:]:
        constants = {name: _exact(value) for name, value in node.constants.items()}
        values.append(_OPERATORS[node.op](node, constants, *(values[source] for source in node.inputs)))
        assert values[-1].shape == node.shape
    return list(values[-1])


def margin(logits: list[Fraction], y: int) -> Fraction:
    """Return f_y − max_{j≠y} f_j."""
    return logits[y] - max(value for j, value in enumerate(logits) if j != y)


def _exact(tensor) -> np.ndarray:
    array = tensor.detach().double().numpy()
    return np.array([Fraction(float(v)) for v in array.ravel()] + [None], dtype=object)[:-1].reshape(array.shape)


def _each(function):
    return lambda node, c, x: np.vectorize(lambda v: function(node, v), otypes=[object])(x)


def _windows(x, kernel, stride, padding, dilation, fill):
    """Yield (output position, window [C, *kernel]) of `x` [C, ...]; `fill` stands in for padding."""
    half = len(padding) // 2
    padded = np.pad(x, [(0, 0), *zip(padding[:half], padding[half:], strict=True)], constant_values=fill)
    spatial = padded.shape[1:]
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    counts = [(n - r) // s + 1 for n, r, s in zip(spatial, reach, stride, strict=True)]
    for at in itertools.product(*map(range, counts)):
        cut = [slice(i * s, i * s + r, d) for i, s, r, d in zip(at, stride, reach, dilation, strict=True)]
        yield counts, at, padded[(slice(None), *cut)]


def _pool(node, x, function, fill, dilation):
    a = node.attributes
    out = None
    for counts, at, window in _windows(x, a["kernel"], a["stride"], a["padding"], dilation, fill):
        if out is None:
            out = np.empty((len(x), *counts), dtype=object)
        for channel in range(len(x)):
            out[(channel, *at)] = function([v for v in window[channel].ravel() if v is not None])
    return out


def _conv(node, c, x):
    weight, a = c["weight"], node.attributes
    per_group, out_per_group = weight.shape[1], len(weight) // a["groups"]
    out = None
    for counts, at, window in _windows(x, weight.shape[2:], a["stride"], a["padding"], a["dilation"], Fraction(0)):
        if out is None:
            out = np.empty((len(weight), *counts), dtype=object)
        for channel in range(len(weight)):
            start = channel // out_per_group * per_group
            value = (weight[channel] * window[start : start + per_group]).sum()
            out[(channel, *at)] = value + (c["bias"][channel] if "bias" in c else 0)
    return out


def _avg_pool(node, c, x):
    size = math.prod(node.attributes["kernel"])
    counted = node.attributes["count_include_pad"]
    return _pool(
        node, x, lambda v: sum(v, Fraction(0)) / (size if counted else len(v)), Fraction(0) if counted else None, (1, 1)
    )


def _batch_norm(node, c, x):
    out = np.empty_like(x)
    for i, plane in enumerate(x):
        square = c["var"][i] + Fraction(node.attributes["eps"])
        root = Fraction(math.isqrt(square.numerator), math.isqrt(square.denominator))
        assert root * root == square
        out[i] = (plane - c["mean"][i]) / root * c["weight"][i] + c["bias"][i]
    return out


def _group_sort(node, c, x):
    groups = x.reshape(-1, node.attributes["group"], *x.shape[1:])
    return np.sort(groups, axis=1).reshape(x.shape)


def _combine(function):
    def apply(node, c, x, *others):
        a, b = x, (others[0] if others else c["other"])
        return function(b, a) if node.attributes.get("reverse") else function(a, b)

    return apply


def _transcendental(function):
    def apply(node, value):
        with mpmath.workdps(60):
            sign, mantissa, exponent, _ = function(mpmath.mpf(value.numerator) / value.denominator)._mpf_
        return Fraction(int(mantissa)) * Fraction(2) ** int(exponent) * (-1 if sign else 1)

    return _each(apply)


def _sigmoid(v):
    return 1 / (1 + mpmath.exp(-v))


def _mean(node, c, x):
    axes = node.attributes["axes"]
    return x.sum(axis=axes, keepdims=True) / math.prod(x.shape[a] for a in axes)


def _clip(node, value):
    low, high = node.attributes["min"], node.attributes["max"]
    value = value if math.isinf(low) else max(value, Fraction(low))
    return value if math.isinf(high) else min(value, Fraction(high))


def _pad(node, c, x):
    p, rank = node.attributes["padding"], x.ndim
    return np.pad(x, list(zip(p[:rank], p[rank:], strict=True)), constant_values=Fraction(node.attributes["value"]))


def _slice(node, c, x):
    a = node.attributes
    return x[(*[slice(None)] * a["axis"], slice(a["start"], a["stop"], a["step"]))]


_OPERATORS = {
    "add": _combine(lambda a, b: a + b),
    "avg_pool2d": _avg_pool,
    "batch_norm": _batch_norm,
    "clip": _each(_clip),
    "concat": lambda node, c, *xs: np.concatenate(xs, node.attributes["axis"]),
    "conv1d": _conv,
    "conv2d": _conv,
    "div": _combine(lambda a, b: a / b),
    "global_avg_pool2d": lambda node, c, x: x.sum(axis=(1, 2), keepdims=True) / (x.shape[1] * x.shape[2]),
    "group_sort": _group_sort,
    "leaky_relu": _each(lambda node, v: v if v >= 0 else v * Fraction(node.attributes["slope"])),
    "linear": lambda node, c, x: c["weight"] @ x + (c["bias"] if "bias" in c else Fraction(0)),
    "max_pool2d": lambda node, c, x: _pool(node, x, max, None, node.attributes["dilation"]),
    "mean": _mean,
    "mul": _combine(lambda a, b: a * b),
    "neg": lambda node, c, x: -x,
    "pad": _pad,
    "relu": _each(lambda node, v: max(v, Fraction(0))),
    "reshape": lambda node, c, x: x.reshape(node.attributes["shape"]),
    "sigmoid": _transcendental(_sigmoid),
    "slice": _slice,
    "sub": _combine(lambda a, b: a - b),
    "tanh": _transcendental(mpmath.tanh),
    "transpose": lambda node, c, x: x.transpose(node.attributes["axes"]),
}

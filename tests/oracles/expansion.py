"""An adversarial search for pairs of inputs that a network moves apart by more than a claimed Lipschitz constant.

Pairs start random, along single coordinates and far apart; the difference follows the generalised power method
d ← Jᵀ(f(x + d) − f(x)), and x the gradient of the expansion. A pair near the claim or beyond it is decided in exact
rational arithmetic, so that a violation is a proof.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from oracles.random_graphs import evaluate
from oracles.rational import rational_logits
from robench.graph import Graph

__all__ = ["expanded", "most_expanded"]

SIZES = (1e-2, 0.3, 3.0)


def expanded(graph: Graph, constant: float, seed: int = 0, starts: int = 32, steps: int = 24) -> str | None:
    """Return None, or how a pair of inputs is moved apart by more than `constant` times their distance."""
    ratio, first, second = most_expanded(graph, seed, starts, steps)
    if ratio <= constant * (1 - 1e-9):
        return None
    outputs = zip(rational_logits(graph, first), rational_logits(graph, second), strict=True)
    moved = sum((a - b) ** 2 for a, b in outputs)
    inputs = zip(first.flatten().tolist(), second.flatten().tolist(), strict=True)
    apart = sum((Fraction(a) - Fraction(b)) ** 2 for a, b in inputs)
    return None if moved <= Fraction(constant) ** 2 * apart else f"expansion {ratio}, claimed at most {constant}"


def most_expanded(graph: Graph, seed: int = 0, starts: int = 32, steps: int = 24) -> tuple[float, Tensor, Tensor]:
    """Return (‖f(x) − f(x′)‖ / ‖x − x′‖, x, x′), float64, for the pair that was expanded most."""
    generator = torch.Generator().manual_seed(seed)
    shape, size = graph.input_shape, int(torch.tensor(graph.input_shape).prod())
    x = torch.randn(starts * len(SIZES), *shape, dtype=torch.float64, generator=generator)
    d = torch.randn(*x.shape, dtype=torch.float64, generator=generator)
    alone = torch.eye(size, dtype=torch.float64)[torch.randint(size, (len(x) // 2,), generator=generator)]
    d[: len(alone)] = alone.reshape(-1, *shape)
    length = torch.tensor(SIZES, dtype=torch.float64).repeat_interleave(starts).roll(starts // 2)
    length = length.reshape(-1, *[1] * len(shape))
    best: tuple[float, Tensor, Tensor] = (0.0, x[0], x[0])
    for _ in range(steps):
        first = x.requires_grad_()
        second = (x.detach() + _unit(d) * length).requires_grad_()
        moved = evaluate(graph, second) - evaluate(graph, first)
        apart = (second - first).flatten(1).norm(dim=1)
        ratio = moved.detach().norm(dim=1) / apart.detach()
        top = int(ratio.nan_to_num(0.0).argmax())
        if float(ratio[top]) > best[0]:
            best = (float(ratio[top]), first[top].detach(), second[top].detach())
        pull = torch.autograd.grad((moved * moved.detach()).sum(), [first, second], materialize_grads=True)
        d = _unit(pull[1])
        x = (x + _unit(pull[0] + pull[1]) * length / 4).detach()
    return best


def _unit(values: Tensor) -> Tensor:
    norm = values.flatten(1).norm(dim=1).reshape(-1, *[1] * (values.ndim - 1))
    fallback = torch.zeros_like(values)
    fallback.flatten(1)[:, 0] = 1.0
    return torch.where(norm > 0, values / norm.clamp_min(1e-300), fallback)

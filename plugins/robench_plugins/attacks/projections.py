"""Exact Euclidean projections onto ball ∩ box, and maximisers of a linear function over it.

Everything works on flat perturbations δ [B, D] with the box as low ≤ δ ≤ high, low ≤ 0 ≤ high (the
clean input lies in the box), so every solution keeps the sign of what it is made from and is described
by magnitudes: a = |δ| and the room r in that direction, which may be infinite.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from robench.threat import Norm

__all__ = ["ascending", "maximise", "project"]

_Radius = float | Tensor
"""Of the ball: one for all rows, or one each, [B, 1]."""

_Solver = Callable[[Tensor, _Radius, Tensor, Tensor], Tensor]


def project(norm: Norm, delta: Tensor, eps: _Radius, low: Tensor, high: Tensor) -> Tensor:
    """Return argmin ‖z − δ‖₂ over ‖z‖ ≤ eps, low ≤ z ≤ high, [B, D] like `delta`."""
    return _PROJECT[norm](delta, eps, low, high)


def maximise(norm: Norm, gradient: Tensor, eps: _Radius, low: Tensor, high: Tensor) -> Tensor:
    """Return argmax ⟨g, z⟩ over ‖z‖ ≤ eps, low ≤ z ≤ high, [B, D] like `gradient`; 0 where g is 0.

    Without an active box: eps·sign(g) in linf, eps·g/‖g‖₂ in l2, eps on the steepest coordinate in l1.
    """
    return _MAXIMISE[norm](gradient, eps, low, high)


def ascending(values: Tensor) -> Tensor:
    """Return the entries of each row [B, D] in ascending order. On a CPU NumPy sorts many times faster."""
    return torch.from_numpy(np.sort(values.numpy(), 1)) if values.device.type == "cpu" else values.sort(1).values


def _order(values: Tensor) -> Tensor:
    """Return what sorts each row [B, D] in ascending order, equal entries in any order."""
    return torch.from_numpy(np.argsort(values.numpy(), 1)) if values.device.type == "cpu" else values.argsort(1)


def _held(delta: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the magnitudes of `delta` clipped to the box, without the masks that are slow on a CPU."""
    return delta.clamp(low, high).abs_()


def _room(direction: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return how far each coordinate can go in its direction before it meets the box."""
    return torch.where(direction > 0, high, -low).clamp_min(0)


def _project_linf(delta: Tensor, eps: _Radius, low: Tensor, high: Tensor) -> Tensor:
    radius = torch.as_tensor(eps, dtype=delta.dtype, device=delta.device)
    return delta.clamp(-radius, radius).clamp(low, high)


def _project_l2(delta: Tensor, eps: _Radius, low: Tensor, high: Tensor) -> Tensor:
    """KKT: z = min(s a, r) with s = 1/(1 + μ) ≤ 1, and s < 1 only where ‖z‖₂ = eps."""
    return (delta * _scale(delta.abs(), _held(delta, low, high), eps, 1.0)).clamp_(low, high)


def _maximise_l2(gradient: Tensor, eps: _Radius, low: Tensor, high: Tensor) -> Tensor:
    """KKT: z = min(t |g|, r) with any t ≥ 0; in float64, since t spans many orders of magnitude."""
    g = gradient.double()
    size = g.abs()
    size = size / size.amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    room = _room(gradient, low, high).double().clamp_max(eps)
    return (g.sign() * torch.minimum(_scale(size, room, eps, torch.inf) * size, room)).to(gradient.dtype)


_NEWTON_STEPS = 8


def _scale(size: Tensor, room: Tensor, eps: _Radius, limit: float) -> Tensor:
    """Return the largest s ≤ limit with ‖min(s a, r)‖₂ ≤ eps, [B, 1].

    h(q) = Σ min(q a², r²) is concave, increasing and piecewise linear in q = s². Newton's method from
    the root of the first piece therefore climbs to the root without overshooting and ends on the
    right piece after few steps: h and its slope shrink by 4 together in each (Dinkelbach's bound),
    and 7 steps are the most seen over rooms and sizes that span eight decades.
    """
    tiny = torch.finfo(size.dtype).tiny
    budget = eps * eps
    square = size.square()
    q = (budget / square.sum(1, keepdim=True).clamp_min(tiny)).clamp_max(limit)
    last: Tensor | None = None
    for _ in range(_NEWTON_STEPS):
        # 1 where s a < r, else 0; by arithmetic, as masks are many times slower on a CPU.
        free = (room - q.sqrt() * size).sign_().clamp_min_(0)
        # On the same piece the root is the same, so stopping changes nothing; asking is free on a CPU alone.
        if last is not None and q.device.type == "cpu" and torch.equal(free, last):
            break
        last = free
        held = torch.addcmul(room, free, room, value=-1).square_().sum(1, keepdim=True)
        slope = (free * square).sum(1, keepdim=True)
        root = (budget - held) / slope.clamp_min(tiny)
        q = torch.where(slope > 0, torch.maximum(q, root), q).clamp_max(limit)
    return q.sqrt()


def _project_l1(delta: Tensor, eps: _Radius, low: Tensor, high: Tensor) -> Tensor:
    """Croce & Hein 2021, "Mind the box": z = min(max(a − λ, 0), r), λ found by sorting.

    φ(λ) = ‖z(λ)‖₁ falls piecewise linearly; its kinks are a − r (a coordinate leaves the box's side)
    and a (it reaches 0). Their sorted prefix sums give φ at every kink, and the piece with φ = eps
    gives λ. Sums in float64.
    """
    size, room = delta.abs().double(), _held(delta, low, high).double()
    sides = size - room
    kinks = torch.cat([sides, size], 1)
    order = _order(kinks)
    kinks = kinks.gather(1, order)
    moving = (order < size.shape[1]).to(kinks.dtype).mul_(2).sub_(1).cumsum(1)
    total = room.sum(1, keepdim=True)
    fallen = (moving[:, :-1] * kinks.diff(dim=1)).cumsum(1)
    before = (total - fallen > eps).sum(1, keepdim=True)
    left = kinks.gather(1, before)
    # On the piece right of `left`, only these coordinates move; the others are at r or at 0.
    held = (sides > left).to(size.dtype)
    falls = (size > left).to(size.dtype).sub_(held)
    rest = (held * room).sum(1, keepdim=True) + (falls * size).sum(1, keepdim=True)
    shift = (rest - eps) / falls.sum(1, keepdim=True).clamp_min(1)
    shift = torch.maximum(shift, left).masked_fill(total <= eps, 0)
    return delta.sign() * torch.minimum((size - shift).clamp_min_(0), room).to(delta.dtype)


def _maximise_linf(gradient: Tensor, eps: _Radius, low: Tensor, high: Tensor) -> Tensor:
    return (gradient.sign() * eps).clamp(low, high)


def _maximise_l1(gradient: Tensor, eps: _Radius, low: Tensor, high: Tensor) -> Tensor:
    """Fractional knapsack: fill the coordinates in the order of |g|, each up to its room."""
    order = gradient.abs().argsort(dim=1, descending=True, stable=True)
    room = _room(gradient, low, high).clamp_max(eps).double()
    room = torch.where(gradient != 0, room, 0).gather(1, order)
    taken = torch.minimum((eps - (room.cumsum(1) - room)).clamp_min(0), room).to(gradient.dtype)
    return torch.zeros_like(gradient).scatter(1, order, taken) * gradient.sign()


_PROJECT: dict[Norm, _Solver] = {"linf": _project_linf, "l2": _project_l2, "l1": _project_l1}
_MAXIMISE: dict[Norm, _Solver] = {"linf": _maximise_linf, "l2": _maximise_l2, "l1": _maximise_l1}

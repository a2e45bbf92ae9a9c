"""The nearest point of a half-space inside a box, in linf, l2 and l1: DeepFool's step, exact where sides are near."""

from __future__ import annotations

import torch
from torch import Tensor

from robench.threat import Norm

__all__ = ["cross"]


def cross(norm: Norm, normal: Tensor, need: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return argmin ‖z‖ over ⟨w, z⟩ ≥ need, low ≤ z ≤ high, [R, D], and the minimum [R], for normals w [R, D].

    low ≤ 0 ≤ high; `need` [R] ≥ 0. Where no point of the box is far enough the minimum is inf, and z is the box's
    furthest corner along w. Without an active box z is the dual vector: need/‖w‖₁ · sign(w) in linf,
    need/‖w‖₂² · w in l2, need/w_i on the steepest coordinate i in l1.

    Every z_i has the sign of w_i and a size that grows with one number t until it meets the room r_i of its coordinate:
    min(t, r_i) in linf, min(t |w_i|, r_i) in l2, and in l1 the rooms fill one after the other in the order of |w_i|.
    """
    w = normal.double()
    peak = w.abs().amax(1, keepdim=True)
    flat = peak == 0
    # In units of the largest entry, so that nothing overflows or vanishes.
    size = (w / torch.where(flat, 1, peak)).abs()
    need = need.double()[:, None] / torch.where(flat, 1, peak)
    room = torch.where(w > 0, high, -low).double().clamp_min(0)
    room = torch.where(size > 0, room, 0)
    filled = _filled(size, room, need) if norm == "l1" else _grown(norm, size, room, need)
    reached = (size * filled.nan_to_num(posinf=torch.finfo(torch.float64).max)).sum(1, keepdim=True)
    short = flat | (reached < need * (1 - 1e-9)) | ~filled.isfinite().all(1, keepdim=True)
    filled = torch.where(flat, 0, filled)
    length = torch.linalg.vector_norm(filled, {"linf": torch.inf, "l2": 2, "l1": 1}[norm], dim=1)
    return (w.sign() * filled).to(normal.dtype), torch.where(short[:, 0], torch.inf, length).to(normal.dtype)


def _grown(norm: Norm, size: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """Return min(t a, r) with Σ |w| min(t a, r) = need, piecewise linear in t; a = 1 in linf and |w| in l2."""
    pace = (size > 0).double() if norm == "linf" else size
    moving = size > 0
    reach = torch.where(moving, room / torch.where(moving, pace, 1), 0)
    ends, order = reach.sort(1)
    slope = torch.where(moving, size * pace, 0).gather(1, order)
    held = torch.where(moving & room.isfinite(), size * room, 0).gather(1, order).cumsum(1)
    # Before its own end a coordinate grows with t, after it gives its room: the pieces begin at the ends.
    before = torch.cat([torch.zeros_like(need), held[:, :-1]], 1)
    left = slope.flip(1).cumsum(1).flip(1)
    t = (need - before) / left.clamp_min(torch.finfo(torch.float64).tiny)
    fits = (t <= ends) & (left > 0)
    first = fits.double().argmax(1, keepdim=True)
    t = torch.where(fits.any(1, keepdim=True), t.gather(1, first).clamp_min(0), torch.inf)
    return torch.where(moving, torch.minimum(t * pace, room), 0)


def _filled(size: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """Return the rooms filled in the order of |w|, the last one in part, until Σ |w| z = need."""
    order = size.argsort(dim=1, descending=True, stable=True)
    steep = size.gather(1, order)
    wanted = need / steep.clamp_min(torch.finfo(torch.float64).tiny)
    # A coordinate never takes more than would do alone, so that an infinite room stays countable.
    taken = torch.minimum(room.gather(1, order), wanted)
    rest = (need - ((steep * taken).cumsum(1) - steep * taken)).clamp_min(0)
    taken = torch.minimum(taken, rest / steep.clamp_min(torch.finfo(torch.float64).tiny))
    return torch.zeros_like(size).scatter(1, order, torch.where(steep > 0, taken, 0))

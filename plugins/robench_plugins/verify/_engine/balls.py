"""The greatest value of a linear form over a ball of radius 1 around 0, cut by a box.

Every number t ≥ 0 as the multiplier of the ball's constraint bounds it from above (weak duality), so what is found is
sound however well the multiplier was chosen, and exact at the best one. The points are those at which it is met.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robench.threat import Norm

__all__ = ["greatest"]

TURNS = 6
"""Times that the multiplier of an l2 ball is set again; each fixes more coordinates at their walls."""


def greatest(form: Tensor, room: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """Return (v, z): v [R] ≥ max a·z over 0 ≤ z ≤ `room`, ‖z‖ ≤ 1 in `norm` (l1 or l2), and z [R, n] near the maximum.

    Args:
        form: a [R, n], entries in [0, 1].
        room: walls [R, n], in [0, 1].
        norm: of the ball.
    """
    return _greatest_l1(form, room) if norm == "l1" else _greatest_l2(form, room)


def _greatest_l2(form: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """Maximise Σ a z + t/2 (1 − Σ z²): z = min(a / t, room), where t falls as coordinates reach their walls."""
    with torch.no_grad():
        least = torch.finfo(form.dtype).tiny
        t = torch.linalg.vector_norm(form, dim=1, keepdim=True).clamp_min(least)
        free = None
        for _ in range(TURNS):
            inside = form < t * room
            if free is not None and bool((inside == free).all()):
                break
            free = inside
            rest = (1 - torch.where(free, 0.0, room).square().sum(1, keepdim=True)).clamp_min(least)
            wanted = torch.linalg.vector_norm(torch.where(free, form, 0.0), dim=1, keepdim=True) / rest.sqrt()
            t = torch.minimum(t, wanted).clamp_min(least)
        z = torch.minimum(form / t, room)
        slack = t[:, 0] / 2 * (1 - z.square().sum(1))
    return (form * z).sum(1) + slack, z


def _greatest_l1(form: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """Fill the greatest entries first (Dantzig 1957); t is the entry at which the ball is full, 0 if it never is."""
    ordered, index = form.sort(1, descending=True)
    walls = room.gather(1, index)
    filled = walls.cumsum(1)
    last = (filled < 1).sum(1, keepdim=True)
    t = torch.nn.functional.pad(ordered, (0, 1)).gather(1, last)
    value = t[:, 0] + ((ordered - t).clamp_min(0) * walls).sum(1)
    taken = torch.minimum((1 - (filled - walls)).clamp_min(0), walls)
    return value, torch.zeros_like(form).scatter(1, index, taken)

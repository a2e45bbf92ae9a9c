"""The boundary of a linearised classifier at a point, and the nearest points of it inside a box: FAB's and DeepFool's.

Most of FAB's arithmetic happens here: it is done in the inputs' own precision and, but for l1, without sorting.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robench.classifier import Classifier, margins
from robench.threat import Norm
from robench_plugins.attacks._planes import Planes, planes
from robench_plugins.attacks.gradients import pull_back, rounding

__all__ = ["Plane", "aimed", "nearest", "nearest_of", "onto", "room"]

_ROUNDING = 1e-4
"""A plane counts as met at this share of its value less."""

_NEWTON_STEPS = 12

_FEW = 32
"""Coordinates that are sorted first."""


@dataclass(frozen=True, eq=False)
class Plane:
    """The boundary {z : ⟨w, z − point⟩ = value} of each row, in units of the steepest coordinate.

    Attributes:
        margin: f_y − max_{j≠y} f_j at the point [R], NaN where the logits are not finite.
        scale: the largest |logit| [R].
        value: f_y − f_s and what rounding may take from it, below 0 on the far side [R].
        normal: w = −∇(f_y − f_s) [R, D], its largest entry 1; 0 where there is no gradient.
    """

    margin: Tensor
    scale: Tensor
    value: Tensor
    normal: Tensor

    def select(self, rows: Tensor) -> Plane:
        """Return some rows (bool mask or int64 positions)."""
        return Plane(self.margin[rows], self.scale[rows], self.value[rows], self.normal[rows])


def aimed(classifier: Classifier, x: Tensor, y: Tensor, target: Tensor) -> Plane:
    """Return the boundary at `x` [R, ...] between the label and `target` [R]: one forward and one backward pass."""
    pair = torch.stack([y, target], 1)
    sides = torch.tensor([-1.0, 1.0], dtype=x.dtype, device=x.device).expand(len(x), 2)
    logits, gradient = pull_back(classifier, x, lambda seen: torch.zeros_like(seen).scatter(1, pair, sides))
    label, aim = logits.gather(1, pair).unbind(1)
    scale = logits.abs().amax(1)
    return _plane(margins(logits, y), scale, label - aim + rounding(scale), gradient.flatten(1))


def nearest(classifier: Classifier, norm: Norm, x: Tensor, y: Tensor, lower: Tensor, upper: Tensor) -> Plane:
    """Return the nearest of the boundaries at `x` [R, ...] inside the box (eq. 7, there without the box).

    One forward pass, and a backward pass for each other class.
    """
    seen = planes(classifier, x, y, None, classifier.classes - 1)
    return nearest_of(seen, norm, *(part.flatten(1) for part in (x, lower, upper)))


def nearest_of(seen: Planes, norm: Norm, at: Tensor, lower: Tensor, upper: Tensor) -> Plane:
    """Return the nearest of the boundaries seen at `at` [R, D] inside the box; the first where none can be reached."""
    choice: Plane | None = None
    least = seen.margin
    for rank in range(seen.others.shape[1]):
        plane = _plane(seen.margin, seen.scale, seen.values[:, rank], seen.normals[:, rank])
        steep, need = plane.normal.abs(), plane.value.abs()
        size, away = onto(norm, steep, need, room(plane.normal, plane.value, at, lower, upper))
        away = torch.where(torch.linalg.vecdot(steep, size) >= need * (1 - _ROUNDING), away, torch.inf)
        if choice is None:
            choice, least = plane, away
        else:
            nearer = away < least
            least = torch.where(nearer, away, least)
            value = torch.where(nearer, plane.value, choice.value)
            choice = Plane(seen.margin, seen.scale, value, torch.where(nearer[:, None], plane.normal, choice.normal))
    assert choice is not None
    return choice


def room(normal: Tensor, value: Tensor, at: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return how far each coordinate can go [..., R, D] in the direction of the plane; back where `value` is below 0.

    `value` and `at` may have an axis in front: several points for each plane.
    """
    return (torch.where((normal > 0) ^ (value < 0)[..., None], upper, lower) - at).abs()


def _plane(margin: Tensor, scale: Tensor, value: Tensor, normal: Tensor) -> Plane:
    peak = normal.abs().amax(1)
    # Also where the gradient is not finite, or its sums would not be.
    usable = (peak > 0) & (peak < torch.inf) & (value.abs() / peak).isfinite()
    peak = torch.where(usable, peak, 1)
    if normal.device.type != "cpu" or not usable.all():
        normal = torch.where(usable[:, None], normal, 0)
    return Plane(margin, scale, value / peak, normal / peak[:, None])


def onto(norm: Norm, steep: Tensor, need: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """Return argmin ‖z‖ over ⟨a, z⟩ = need, 0 ≤ z ≤ room, for slopes a = |w| [R, D], and the minimum.

    `need` [..., R] ≥ 0, `room` [..., R, D]; z is the room where nothing is far enough, and of no meaning where a is 0.
    Every z_i grows with one number t until it meets its room: min(t, r_i) in linf, min(t a_i, r_i) in l2; in l1 the
    rooms fill one after the other in the order of a.
    """
    if norm == "l1":
        z = _filled(steep.expand_as(room), need[..., None], room)
        return z, z.sum(-1)
    t = _pace(steep, None if norm == "linf" else steep, need, room)[..., None]
    z = torch.minimum(t if norm == "linf" else steep * t, room)
    return z, (z * (steep > 0)).amax(-1) if norm == "linf" else z.norm(dim=-1)


def _pace(steep: Tensor, pace: Tensor | None, need: Tensor, room: Tensor) -> Tensor:
    """Return t with Σ a min(t p, r) = need, p = 1 where `pace` is None; huge where no t is enough.

    The sum is concave, increasing and piecewise linear in t, so Newton's method from the root of its first piece climbs
    to the root without overshooting, and ends on the right piece after few steps.
    """
    weight, huge = steep if pace is None else steep * pace, torch.finfo(steep.dtype).max
    least = torch.finfo(steep.dtype).tiny
    t = (need / weight.sum(-1).clamp_min(least)).clamp_max(huge)
    enough = need * (1 - 4 * torch.finfo(steep.dtype).eps)
    for _ in range(_NEWTON_STEPS):
        grown = t[..., None] if pace is None else pace * t[..., None]
        missing = need - torch.linalg.vecdot(steep, torch.minimum(grown, room))
        # Asking is free on a CPU alone; elsewhere further steps change nothing.
        if t.device.type == "cpu" and bool((need - missing >= enough).logical_or_(t == huge).all()):
            break
        slope = torch.linalg.vecdot(weight, (grown < room).to(steep.dtype))
        t = torch.where(missing > 0, (t + missing / slope).clamp_max(huge), t)
    return t


def _filled(steep: Tensor, need: Tensor, room: Tensor) -> Tensor:
    """Return the rooms filled in the order of the slopes, the last one in part, until Σ a z = need."""
    useful = torch.where(room > 0, steep, 0)
    # The few steepest coordinates are mostly enough; asking is free on a CPU alone.
    few = min(_FEW, steep.shape[-1]) if steep.device.type == "cpu" else steep.shape[-1]
    while True:
        tops, order = useful.topk(few, -1)
        # No coordinate takes more than would do alone, so that an infinite room stays countable.
        tiny = torch.finfo(steep.dtype).tiny
        taken = torch.where(tops > 0, torch.minimum(room.gather(-1, order), need / tops.clamp_min(tiny)), 0)
        got = tops * taken
        rest = (need - (got.cumsum(-1) - got)).clamp_min(0)
        if few == steep.shape[-1] or bool(((rest <= got) | (tops == 0))[..., -1].all()):
            break
        few = min(8 * few, steep.shape[-1])
    taken = torch.minimum(taken, rest / tops.clamp_min(tiny))
    return torch.zeros_like(room).scatter(-1, order, taken)

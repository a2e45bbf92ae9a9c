"""The stages of the health probe, each with fewer samples than the one before. Docs: `probe`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robench.numerics import per_sample
from robench_plugins.attacks import _probe_readings as read
from robench_plugins.attacks._probe_trail import Figures, Slope, Trail
from robench_plugins.attacks.regions import Region
from robench_plugins.attacks.steps import move

if TYPE_CHECKING:
    from robench import Stream, Threat

__all__ = ["At", "aside", "begin", "leap", "walk"]

_NEAR = 1 / 8
"""Length of short steps, in units of ε: long beside what rounding hides, short beside the curvature of most nets."""

_SIZES = (0.35, 0.2)
"""Lengths of the steps that follow the first one, which is half the way to F, in units of ε."""


_HALVINGS = 8
"""Down to 1/256 of the way to an error, on which a continuous margin falls by little, however steep."""


@dataclass(frozen=True, eq=False)
class At:
    """The samples still looked at: `rows` are their positions in the batch, the rest has one entry per row.

    `box` is the whole domain; its infinite sides are replaced by ones as far away as the sample's entries are large,
    twice over. `far` is F and `far_margin` the margin there.
    """

    trail: Trail
    figures: Figures
    rows: Tensor
    stream: Stream
    region: Region
    box: Region
    clean: Slope
    far: Tensor
    far_margin: Tensor

    def still(self) -> At:
        """Return the samples that no point has settled."""
        stay = (~self.trail.settled[self.rows]).nonzero()[:, 0]
        return At(
            self.trail,
            self.figures,
            self.rows[stay],
            self.stream.select(stay),
            self.region.select(stay),
            self.box.select(stay),
            self.clean.select(stay),
            self.far[stay],
            self.far_margin[stay],
        )

    def put(self, code: str, values: Tensor) -> None:
        """Note the figure `code` [R]."""
        self.figures.put(code, self.rows, values)

    def between(self, part: float) -> Tensor:
        """Return the point `part` of the way from x to F."""
        x = self.region.x
        return (x + part * (self.far - x)).clamp(self.region.lower, self.region.upper)

    def kept(self, point: Tensor, margin: Tensor) -> None:
        """Note how much of what the clean gradient promised about `point` its `margin` kept, the least so far."""
        promise = read.promised(self.clean.way, point - self.region.x)
        kept = read.kept(self.clean.margin, margin, promise, self.clean.logits)
        self.figures.least("loss-not-rising", self.rows, kept)

    def way(self, slope: Slope, name: str) -> Tensor:
        """Return the gradient, a random direction where there is none."""
        noise = self.stream.child(name).normal(self.region.x.shape[1:], slope.way.dtype)
        return torch.where(per_sample(slope.flat, noise), noise, slope.way)

    def look(self, points: Tensor, keep: bool = True) -> Tensor:
        """Return the margins at `points`."""
        return self.trail.margins(self.rows, self.trail.look(self.rows, points, keep))


def begin(trail: Trail, figures: Figures, region: Region, threat: Threat, stream: Stream) -> At:
    """Look at the clean inputs; returns the samples that are correct there."""
    x, y = region.x, trail.y
    rows = torch.arange(len(x), device=x.device)
    clean = trail.climb(rows, x)
    box = _everywhere(region, threat)
    at = At(trail, figures, rows, stream, region, box, clean, x, clean.margin)
    at.put("softmax-outputs", read.softmax_like(clean.logits))
    at.put("logit-scale", clean.margin)
    at.put("zero-gradient-ce", read.underflow(clean.logits, y))
    at.put("zero-gradient-margin", read.zeros(clean.way))
    at.put("non-finite-gradient", (~clean.finite).double())
    at.put("vanishing-gradient", read.range_needed(clean.margin, clean.way, x, box.lower, box.upper))
    # Wrong already, or without a margin: nothing to foretell.
    trail.settled |= ~(clean.margin > 0)
    return at.still()


def leap(at: At) -> At:
    """One large step."""
    far = at.region.maximise(at.way(at.clean, "leap"))
    margin = at.look(far)
    at = replace(at, far=far, far_margin=margin)
    at.kept(far, margin)
    return at.still()


def walk(at: At) -> At:
    """Several smaller steps."""
    near, point = at.between(_NEAR), at.between(0.5)
    at.kept(near, at.look(near))
    slope = at.trail.climb(at.rows, point)
    at.kept(point, slope.margin)
    at.put("gradient-turns", read.cosine(at.clean.way, slope.way))
    for number, size in enumerate(_SIZES):
        point = move(at.region, point, at.way(slope, f"step {number}"), size)
        if number + 1 < len(_SIZES):
            slope = at.trail.climb(at.rows, point)
    margin = at.look(point)
    at.put("single-step-stronger", (margin - at.far_margin) / at.clean.margin)
    return at.still()


def aside(at: At) -> At:
    """Everything that needs no step along the gradient, and an attack without a budget."""
    trail, x, clean = at.trail, at.region.x, at.clean
    way = _spread(at, "aside")
    ends = [_corner(at, sign * way) for sign in (1, -1)]
    points = [(x + _NEAR * (end - x)).clamp(at.region.lower, at.region.upper) for end in ends]
    here, there = (at.look(point) for point in points)
    at.put("gradient-differs", read.surprise(here, there, points[1] - points[0], clean.way, clean.logits))

    led = trail.margin[at.rows].clone()
    noise = _corner(at, _spread(at, "noise"))
    slope = trail.climb(at.rows, noise)
    # Not at x, where a classifier may know what it is asked: noise in a defence comes on where attacks go.
    at.put("randomness", read.outputs(slope.logits, trail.look(at.rows, noise, keep=False)))
    at.put("noise-stronger", (led - slope.margin) / clean.margin)
    at.put("gradient-alignment", read.cosine(clean.way, slope.way))

    anywhere = at.box.maximise(at.way(clean, "anywhere"))
    slope = trail.climb(at.rows, anywhere, keep=False)
    further = move(at.box, anywhere, at.way(slope, "anywhere again"), 0.5)
    again = at.look(further, keep=False)
    found = slope.margin <= 0
    at.put("unbounded-not-zero", (~found & (again > 0)).double())
    _cross(at, torch.where(per_sample(found, x), anywhere, further), torch.where(found, slope.margin, again))
    return at.still()


def _cross(at: At, error: Tensor, margin: Tensor) -> None:
    """Find the boundary between x and `error` [R, ...] by bisection, where its `margin` says that it is one."""
    found = (margin <= 0).nonzero()[:, 0]
    rows, inside, outside = at.rows[found], at.region.x[found], error[found]
    above, below = at.clean.margin[found], margin[found]
    drop = above - below
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        now = at.trail.margins(rows, at.trail.look(rows, middle, keep=False))
        correct = now > 0
        inside = torch.where(per_sample(correct, middle), middle, inside)
        outside = torch.where(per_sample(correct, middle), outside, middle)
        above, below = torch.where(correct, now, above), torch.where(correct, below, now)
    at.figures.put("margin-jumps", rows, (above - below) / drop)


def _everywhere(region: Region, threat: Threat) -> Region:
    """Return the whole domain as a region."""
    x = region.x
    width = per_sample((2 * x.flatten(1).abs().amax(1)).clamp_min(4 * region.eps), x)
    lower, upper = threat.domain.box(x)
    lower, upper = (torch.where(side.isinf(), x + sign * width, side) for side, sign in ((lower, -1), (upper, 1)))
    reach = float((upper - lower).amax()) if len(x) else 1.0
    return Region("linf", reach, x, lower, upper)


def _spread(at: At, name: str) -> Tensor:
    return at.stream.child(name).normal(at.region.x.shape[1:], at.region.x.dtype)


def _corner(at: At, way: Tensor) -> Tensor:
    """Return the point on the ball's rim in a random direction; in l1 spread over all coordinates."""
    if at.region.norm != "l1":
        return at.region.maximise(way)
    total = way.flatten(1).abs().sum(1).clamp_min(torch.finfo(way.dtype).tiny)
    return (at.region.x + at.region.eps * way / per_sample(total, way)).clamp(at.region.lower, at.region.upper)

"""Auto-PGD's random starts, and one step of it in each norm."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from robench import Stream
from robench.numerics import per_sample
from robench_plugins.attacks.projections import ascending
from robench_plugins.attacks.regions import Region

__all__ = ["momentum_step", "random_start", "sparse_step", "widened"]


def random_start(region: Region, stream: Stream, radius: float = 1.0) -> Tensor:
    """Return a random point per row, as the authors' code does, in the ball of radius·ε and the box.

    linf and l2: uniform and normal draws, scaled to ‖δ‖ = radius·ε. l1: normal draws as wide as the box (deviation 1 in
    [0, 1]; radius·ε where it has no end), which the projection makes sparse.
    """
    region = widened(region, radius)
    shape, dtype = region.x.shape[1:], region.x.dtype
    if region.norm == "l1":
        width = region.upper - region.lower
        return region.project(region.x + stream.normal(shape, dtype) * torch.where(width.isinf(), region.eps, width))
    if region.norm == "linf":
        noise = stream.uniform(shape, -1.0, 1.0, dtype=dtype)
        length = noise.flatten(1).abs().amax(1)
    else:
        noise = stream.normal(shape, dtype)
        length = noise.flatten(1).norm(dim=1)
    length = length.clamp_min(torch.finfo(dtype).tiny)
    return region.project(region.x + noise * per_sample(region.eps / length, noise))


def widened(region: Region, radius: float) -> Region:
    """Return the balls of radius·ε in the same box; in linf, where the box holds ε, only `radius` = 1 has a meaning."""
    return region if radius == 1 else replace(region, eps=radius * region.eps)


def momentum_step(region: Region, point: Tensor, last: Tensor, way: Tensor, size: Tensor, alpha: float) -> Tensor:
    """Return x⁺ = P(x + α (z − x) + (1 − α) (x − x⁻)), z = P(x + η s) (Croce & Hein 2020, Algorithm 1, lines 7 and 8).

    x = `point` and x⁻ = `last` [R, ...]; η = `size`·ε [R]; s is sign(g) in linf and g/‖g‖₂ in l2 for g = `way`.
    P is the exact projection onto ball ∩ box (the authors' code scales in l2, then clips).
    """
    if region.norm == "linf":
        unit = way.sign()
    else:
        # Divided by its largest entry first: squares of gradients underflow.
        unit = way / per_sample(way.flatten(1).abs().amax(1).clamp_min(torch.finfo(way.dtype).tiny), way)
        unit = unit / per_sample(unit.flatten(1).norm(dim=1).clamp_min(torch.finfo(way.dtype).tiny), way)
    ahead = region.project(torch.addcmul(point, per_sample(size * region.eps, point), unit))
    if alpha == 1:
        return ahead
    return region.project((2 * point).sub_(last).lerp_(ahead, alpha))


def sparse_step(region: Region, point: Tensor, way: Tensor, size: Tensor, moved: Tensor) -> Tensor:
    """Return P(x + η s), s = sign(g) / k on the k = `moved` [R] steepest coordinates (Croce & Hein 2021, section 3.2).

    P projects onto l1 ball ∩ box; η = `size`·ε [R]. Coordinates as steep as the k-th step too, those with g = 0 do not.
    Nor, unlike as published, do those that the box holds back: the steepest would keep their place, and nothing moves.
    """
    # By arithmetic, as masks are many times slower on a CPU: 1 where the coordinate is not at its side, else 0.
    rises, falls = (region.upper - point).sign_(), (point - region.lower).sign_()
    way = (way.clamp_min(0) * rises + way.clamp_max(0) * falls).flatten(1)
    steep = way.abs()
    least = ascending(steep).gather(1, (steep.shape[1] - moved).clamp_min(0)[:, None])
    sign = way.sign() * (steep >= least)
    length = (size * region.eps / sign.abs().sum(1).clamp_min(1)).to(point.dtype)
    return region.project(point + (sign * length[:, None]).reshape(point.shape))

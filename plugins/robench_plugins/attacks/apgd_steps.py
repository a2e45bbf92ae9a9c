"""Auto-PGD's random starts, and one step of it in each norm."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from robench import Stream
from robench.numerics import per_sample
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
    return region.project(torch.lerp(2 * point - last, ahead, alpha))


def sparse_step(region: Region, point: Tensor, way: Tensor, size: Tensor, moved: Tensor) -> Tensor:
    """Return P(x + η s), s = sign(g) / k on the k = `moved` [R] steepest coordinates (Croce & Hein 2021, section 3.2).

    P projects onto l1 ball ∩ box; η = `size`·ε [R]. Coordinates as steep as the k-th step too, those with g = 0 do not.
    Nor, unlike as published, do those that the box holds back: the steepest would keep their place, and nothing moves.
    """
    free = torch.where(way > 0, point < region.upper, point > region.lower)
    way = way.masked_fill(~free, 0).flatten(1)
    steep = way.abs()
    least = steep.sort(1, descending=True).values.gather(1, (moved - 1).clamp_max(steep.shape[1] - 1)[:, None])
    sign = way.sign().masked_fill(steep < least, 0)
    length = (size * region.eps / sign.abs().sum(1).clamp_min(1)).to(point.dtype)
    return region.project(point + (sign * length[:, None]).reshape(point.shape))

"""One chunk of samples with sets of their own: a box for each, and outputs that must not occur in it (VNN-LIB).

A row answers one question, whether the sample's region is safe. Its ε is the least radius around the sample whose ball
holds the box; a proof is written with the radius of the largest ball within the box, a witness with its own distance.

Evaluators that declare `regions = True` get all samples at once, with their sets. Others get those of one radius
together, and search or certify the whole ball, which contains the box; attacks that take their limits from
`robench.distances.linf_box` search the box itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robench.distances import inner_radius, outer_radius
from robench.errors import PluginError
from robench.regions import Region, about_labels
from robench.runner._answers import Claims, checked_certificates
from robench.runner._chunk import Chunk, Cost, Details, Work
from robench.runner._judge import Verdict
from robench.runner._plan import Evaluator, Plan, Side
from robench.threat import Threat

__all__ = ["RegionChunk", "budget"]

_BITS = 20
_LEAST = 1e-30


def budget(radius: float) -> float:
    """Return the ε that evaluators get for a ball of `radius`: the next number of 20 bits, and never 0.

    Radii that differ by rounding alone become one, whatever else is in the batch.
    """
    fraction, exponent = math.frexp(max(radius, _LEAST))
    return math.ldexp(math.ceil(fraction * 2**_BITS), exponent - _BITS)


class RegionChunk(Chunk):
    """A chunk whose samples come with regions."""

    def __init__(
        self,
        plan: Plan,
        x: Tensor,
        y: Tensor,
        indices: Sequence[int],
        limit: int,
        warn: Callable[[str], None],
        region: Region,
    ) -> None:
        """Prepare samples as `Chunk`, with their `region`."""
        super().__init__(plan, x, y, indices, limit, warn)
        self.region = region
        self.outer = outer_radius(x, region)
        self.inner = inner_radius(x, region, plan.samples.domain)
        if not about_labels(region.conditions, y.tolist()):
            self.inner = torch.zeros_like(self.inner)  # it is not about r*
        self.turn = torch.ones_like(self.correct)

    def _classify(self, part: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.judge.clean(self.x[part], self.y[part], self.region.select(part))

    def _pass(self, evaluator: Evaluator, threat: Threat) -> None:
        for eps, turn in self._groups(evaluator):
            self.turn = turn
            super()._pass(evaluator, replace(threat, eps=eps))

    def _groups(self, evaluator: Evaluator) -> Iterator[tuple[float | None, Tensor]]:
        """Yield (ε to ask at, bool [B]): all samples for who knows regions, those of one radius for others."""
        budgets = torch.tensor([budget(radius) for radius in self.outer.tolist()], dtype=torch.float64)
        everything = torch.ones_like(self.correct)
        if getattr(evaluator.value, "regions", False):
            yield float(budgets.max()), everything
        elif evaluator.side == "certificate" and not evaluator.per_eps:
            yield None, everything
        else:
            for eps in sorted(set(budgets.tolist())):
                yield eps, (budgets == eps).to(everything.device)

    def _active(self, threat: Threat, side: Side) -> Tensor:
        return super()._active(threat, side) & self.turn

    def _budget(self, threat: Threat) -> Tensor:
        return self.outer.clamp_min(_LEAST)

    def _within(self, threat: Threat | None, pick: Callable[[list[float]], float]) -> Tensor:
        return self.outer.clamp_min(_LEAST)

    def _given(self, threat: Threat, part: Tensor) -> Threat:
        return replace(threat, region=self.region.select(part))

    def _claims(self, work: Work, part: Tensor, made: Any) -> Claims:
        """Return a certifier's answer: certified with the row's own ε, where the ball or the region was."""
        claims = checked_certificates(work.spec, made, self.x[part], work.threat, work.kind == "verifier")
        outer = self.outer[part].cpu().numpy()
        proven = np.array([one == "certified" for one in claims.status]) & (claims.lower >= outer)
        status = [
            one if one != "certified" or sure else "open" for one, sure in zip(claims.status, proven, strict=True)
        ]
        return replace(claims, lower=np.where(proven, np.maximum(outer, _LEAST), 0.0), status=status)

    def _check_within(self, spec: str, rows: Tensor, points: Tensor, threat: Threat) -> None:
        lower, upper = self.region.select(rows).inside(self.x[rows])
        outside = ~((points >= lower) & (points <= upper)).flatten(1).all(1)
        if outside.any():
            sample = self.indices[int(rows[outside][0])]
            raise PluginError(spec, f"the point of sample {sample} left its box while it was judged")

    def _record(
        self,
        work: Work,
        rows: Tensor,
        verdict: Verdict | None,
        cost: Cost,
        details: Details | None,
        claims: Claims | None = None,
    ) -> None:
        kept = len(self.witnesses)
        super()._record(work, rows, verdict, cost, details, claims)
        outer, inner = (one[rows].cpu().numpy() for one in (self.outer, self.inner))
        certified = np.array([one == "certified" for one in self.blocks[-1].status])
        self.blocks[-1] = replace(self.blocks[-1], eps=outer, lower=np.where(certified, inner, 0.0))
        if len(self.witnesses) > kept:
            own = self.outer.cpu().numpy()[self.witnesses[-1].rows]
            self.witnesses[-1] = replace(self.witnesses[-1], eps=own)

    def _failed(self, work: Work, error: PluginError) -> None:
        super()._failed(work, error)
        if len(work.rows):
            self.blocks[-1] = replace(self.blocks[-1], eps=self.outer[work.rows].cpu().numpy())

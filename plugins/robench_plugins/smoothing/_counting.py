"""The draws of certificates: counted on the classifier's device, and what they prove."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from robench.binomial import Integers
from robench.classifier import Draws
from robench_plugins.smoothing._sequence import Verdict, decide
from robench_plugins.smoothing._terms import Decision, Radius

__all__ = ["Row", "decided", "measured", "rederived"]

Row = tuple[float, str, dict[str, Any]]
"""Lower bound, status and figures of a sample."""


def measured(terms: Radius, draws: Draws, rows: Integers, chosen: Integers, votes0: Integers) -> list[Row]:
    """Return what is proven about samples [A], by position `rows`, whose first draws chose `chosen` with `votes0`."""
    n = np.array([terms.draws(votes) for votes in votes0.tolist()], dtype=np.int64)
    votes = draws.count(rows.tolist(), n.tolist()).cpu().numpy()
    places = np.arange(len(rows))
    hits: Integers = votes[places, chosen]
    votes[places, chosen] = -1
    second: Integers = votes.max(axis=1)
    radii, low, up = terms.bounds(hits, second, n)
    made: list[Row] = []
    for i, radius in enumerate(radii.tolist()):
        figures = {"n": int(n[i]), "hits": int(hits[i]), "p_low": float(low[i]), "looks": 1}
        if terms.sides == 2:
            figures |= {"second": int(second[i]), "p_up": float(up[i])}
        made.append((radius, "certified" if radius > 0 else terms.unproven, figures))
    return made


def decided(terms: Decision, draws: Draws, rows: Integers, chosen: Integers) -> list[Row]:
    """Return what is decided about samples [A], each drawn for until it is told; arguments as `measured`."""
    test = terms.test

    def hits(active: Integers, count: int) -> Integers:
        left = rows[active]
        votes = draws.count(left.tolist(), [count] * len(left))
        # Only these leave the device.
        columns = torch.from_numpy(chosen[active]).to(votes.device)
        found: Integers = votes.gather(1, columns[:, None])[:, 0].cpu().numpy()
        return found

    told = decide(test, hits, len(rows))
    looks = np.searchsorted(test.looks, told.draws) + 1
    made: list[Row] = []
    for verdict, n, hit, look in zip(
        told.verdict.tolist(), told.draws.tolist(), told.hits.tolist(), looks.tolist(), strict=True
    ):
        figures = {"n": n, "hits": hit, "p0": test.threshold, "looks": look, "verdict": Verdict(verdict).name.lower()}
        sure = verdict == Verdict.CERTIFIED
        made.append((terms.eps if sure else 0.0, "certified" if sure else terms.unproven, figures))
    return made


def rederived(terms: Radius | Decision, detail: Mapping[str, Any], label: int) -> Row:
    """Return what the counts in a row's detail prove about `label`, with the reason where they cannot be."""
    try:
        radius = terms.proven(detail)
    except ValueError as error:
        return 0.0, "error", {"reason": str(error)}
    if "hits" not in detail:
        return 0.0, "open", {}
    if detail["class"] != label:
        return 0.0, "open", {"reason": f"its counts are about class {detail['class']}"}
    return radius, "certified" if radius > 0 else terms.unproven, {}

"""How far the classes of some samples are apart, from a bound's facts, which may come from anybody."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from robench.bounds import BoundRun
from robench.threat import Norm
from robench_leaderboard._charts import MOST_CLASSES, separation_chart
from robench_leaderboard._text import norm_name, plain

__all__ = ["Pair", "Separation", "separation_of"]

_CLOSEST = 10

Table = list[list[float | None]]


@dataclass(frozen=True)
class Pair:
    """Two classes and the smallest distance between their samples; at half of it they meet."""

    one: str
    other: str
    distance: float


@dataclass(frozen=True)
class Separation:
    """Smallest distances between classes in one norm, the closest pairs first; no chart of very many classes."""

    norm: Norm
    pairs: tuple[Pair, ...]
    hidden: int
    chart: Markup | None
    run: str


def separation_of(run: BoundRun) -> Separation | None:
    """Return the distances among a bound's facts, None where there are none of the form that they should have."""
    told = _told(run.manifest.facts.get("separation"))
    if told is None:
        return None
    norm, (names, table) = run.manifest.norm, told
    pairs = [
        Pair(names[i], names[j], distance)
        for i in range(len(names))
        for j in range(i + 1, len(names))
        if (distance := table[i][j]) is not None
    ]
    pairs.sort(key=lambda pair: pair.distance)
    if not pairs:
        return None
    words = (
        f"Smallest distances in {norm_name(norm)} between the samples of {len(names)} classes; the closest are "
        f"{plain(pairs[0].one, 30)} and {plain(pairs[0].other, 30)}, {pairs[0].distance:.4g} apart."
    )
    chart = separation_chart(names, table, words=words) if len(names) <= MOST_CLASSES else None
    return Separation(norm, tuple(pairs[:_CLOSEST]), max(0, len(pairs) - _CLOSEST), chart, run.manifest.run)


def _told(facts: Any) -> tuple[list[str], Table] | None:
    """Class names and a square table of distances or nulls, checked."""
    if not isinstance(facts, dict):
        return None
    names, lines = facts.get("classes"), facts.get("distance")
    if not (isinstance(names, list) and isinstance(lines, list) and 2 <= len(names) == len(lines)):
        return None
    if not all(isinstance(name, str) for name in names):
        return None
    table: Table = []
    for line in lines:
        if not (isinstance(line, list) and len(line) == len(names)):
            return None
        if not all(one is None or _is_distance(one) for one in line):
            return None
        table.append([None if one is None else float(one) for one in line])
    return names, table


def _is_distance(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf

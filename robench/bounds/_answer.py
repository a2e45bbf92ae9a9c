"""What a bound hands back, checked before anybody reads it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from robench.bounds._manifest import facts_of
from robench.bounds._table import DIRECTIONS, SCOPES, BoundRow, sentence_problem
from robench.contracts import BoundCurve
from robench.evidence import detail_json
from robench.threat import Epsilon, Norm

__all__ = ["answer_problem", "facts_in", "rows_of"]


def answer_problem(curve: Any, n: int) -> str | None:
    """Say what in a bound's answer about `n` ε (ascending) breaks the contract of `BoundCurve`; None where nothing."""
    if not isinstance(curve, BoundCurve):
        return f"evaluate returned {type(curve).__name__}, not robench.BoundCurve"
    if curve.direction not in DIRECTIONS:
        return f"direction {curve.direction!r} is not {' or '.join(DIRECTIONS)}"
    if curve.scope not in SCOPES:
        return f"scope {curve.scope!r} is not {' or '.join(SCOPES)}"
    for name in ("assumptions", "source"):
        if problem := sentence_problem(getattr(curve, name)):
            return f"{name} {problem}"
    return _values(curve, n) or _details(curve, n)


def _values(curve: Any, n: int) -> str | None:
    try:
        values = [float(value) for value in curve.value]
    except (TypeError, ValueError):
        return "value is no sequence of numbers"
    if len(values) != n:
        return f"{len(values)} values for {n} ε"
    for value in values:
        if not (math.isfinite(value) and 0 <= value <= 1):
            return f"value {value} is no accuracy in 0 … 1"
    for before, value in itertools.pairwise(values):
        if value > before and curve.direction == "ceiling":  # whoever is robust within ε is robust within less
            return f"the ceiling rises with ε: {value} after {before}"
    return None


def _details(curve: Any, n: int) -> str | None:
    if curve.detail is not None and (not isinstance(curve.detail, Sequence) or len(curve.detail) != n):
        return f"detail is no sequence of {n}, one for each ε"
    for name, given in [("facts", curve.facts), *(("detail", one) for one in curve.detail or ())]:
        if given is not None and not isinstance(given, Mapping):
            return f"{name} {type(given).__name__} is no mapping"
        try:
            facts_in(given)
        except ValueError as error:
            return f"{name} {error}"
    return None


def facts_in(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return facts or a detail as plain JSON values. Raises ValueError for what JSON cannot hold."""
    return facts_of(detail_json(given or {}))


def rows_of(curve: BoundCurve, norm: Norm, epsilons: Sequence[Epsilon], samples_hash: str) -> tuple[BoundRow, ...]:
    """Return a checked answer as rows, one for each ε."""
    details = curve.detail or [None] * len(epsilons)
    return tuple(
        BoundRow(
            norm=norm,
            eps=eps,
            value=float(value),
            direction=curve.direction,
            scope=curve.scope,
            samples_hash=samples_hash,
            assumptions=curve.assumptions,
            source=curve.source,
            detail=None if detail is None else facts_in(detail),
        )
        for eps, value, detail in zip(epsilons, curve.value, details, strict=True)
    )

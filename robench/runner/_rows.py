"""Rows on their way into evidence: what one evaluator showed about some samples of a chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from robench.evidence import Kind, detail_json
from robench.threat import Norm

__all__ = ["Block", "WitnessBlock", "encode_detail"]

DETAIL_LIMIT = 64 * 1024


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of one evaluator at one ε; arrays have one entry per sample [B].

    `rows` are positions in the chunk; the other fields are the evidence columns of the same name. Samples with regions
    have an ε each.
    """

    evaluator: str
    kind: Kind
    norm: Norm | None
    eps: float | npt.NDArray[np.float64] | None
    rows: npt.NDArray[np.int64]
    lower: npt.NDArray[np.float64]
    upper: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    status: Sequence[str]
    forwards: npt.NDArray[np.int64]
    backwards: npt.NDArray[np.int64]
    seconds: float
    detail: Sequence[str | None]

    @classmethod
    def open(cls, rows: npt.NDArray[np.int64], **columns: Any) -> Block:
        """Return rows that prove nothing about r*; `columns` are the fields that are left."""
        count = len(rows)
        return cls(rows=rows, lower=np.zeros(count), upper=np.full(count, np.inf), confidence=np.ones(count), **columns)


@dataclass(frozen=True, eq=False)
class WitnessBlock:
    """The points behind the finite `upper` of a block."""

    evaluator: str
    norm: Norm
    eps: float | npt.NDArray[np.float64] | None
    rows: npt.NDArray[np.int64]
    points: npt.NDArray[Any]
    distances: Mapping[str, npt.NDArray[np.float64]]
    prediction: npt.NDArray[np.int64]
    margin: npt.NDArray[np.float64]
    detail: Sequence[str | None] = field(default_factory=list)


def encode_detail(*parts: Mapping[str, Any] | None) -> str | None:
    """Return the parts merged as JSON, later ones winning; None when there is nothing to say."""
    merged: dict[str, Any] = {}
    for part in parts:
        merged.update(part or {})
    if not merged:
        return None
    try:
        text = detail_json(merged)
    except (TypeError, ValueError):
        return detail_json({"reason": "the plugin's detail is not JSON"})
    return text if len(text) <= DETAIL_LIMIT else detail_json({"reason": "the plugin's detail is over 64 KiB"})

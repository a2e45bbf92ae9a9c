"""Rows on their way into evidence: what one evaluator showed about some samples of a chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from robench.contracts import Passes
from robench.evidence import Kind, detail_json
from robench.threat import Norm

__all__ = ["Block", "WitnessBlock", "encode_detail", "spread"]

DETAIL_LIMIT = 64 * 1024


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of one evaluator at one ε; arrays have one entry per sample [B].

    `rows` are positions in the chunk; the other fields are the evidence columns of the same name.
    """

    evaluator: str
    kind: Kind
    norm: Norm | None
    eps: float | None
    rows: npt.NDArray[np.int64]
    lower: npt.NDArray[np.float64]
    upper: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    status: Sequence[str]
    forwards: npt.NDArray[np.int64]
    backwards: npt.NDArray[np.int64]
    seconds: float
    detail: Sequence[str | None]


@dataclass(frozen=True, eq=False)
class WitnessBlock:
    """The points behind the finite `upper` of a block."""

    evaluator: str
    norm: Norm
    eps: float | None
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


def spread(
    total: tuple[int, int], claimed: Passes | None, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Charge the passes counted by the runner to `count` samples.

    A plugin's own account is used where it adds up to exactly what was counted; otherwise equal shares are.
    """
    forwards, backwards = (_shares(number, count) for number in total)
    if claimed is not None:
        theirs = _integers(claimed.forwards, count), _integers(claimed.backwards, count)
        if theirs[0] is not None and theirs[1] is not None and (theirs[0].sum(), theirs[1].sum()) == total:
            return theirs[0], theirs[1]
    return forwards, backwards


def _shares(number: int, count: int) -> npt.NDArray[np.int64]:
    base, extra = divmod(number, count)
    return np.full(count, base, np.int64) + (np.arange(count) < extra)


def _integers(tensor: Tensor, count: int) -> npt.NDArray[np.int64] | None:
    array = np.asarray(tensor.detach().cpu().numpy())
    if array.shape != (count,) or array.dtype.kind not in "iu" or (array < 0).any():
        return None
    return array.astype(np.int64)

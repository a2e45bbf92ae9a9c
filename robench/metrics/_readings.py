"""What attacks measured about single samples, out of the details of their rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from robench.health import readings

__all__ = ["frame_of", "readings_of"]

_COLUMNS = ["run", "sample", "norm", "eps", "code", "value"]
_LONGEST = 64 * 1024
"""Characters of a detail that the runner keeps; longer ones are not its own."""


def readings_of(table: pa.Table) -> list[tuple[Any, ...]]:
    """Return (run, sample, norm, ε, code, value) of every health indicator in the details of a part's attacks.

    Parts may be a stranger's: what is no finite number under a known code in a JSON object says nothing.
    """
    wanted = pc.and_(
        pc.equal(pc.cast(table["kind"], pa.string()), "attack"),
        pc.and_(
            pc.match_substring(table["detail"], '"health"'), pc.less_equal(pc.utf8_length(table["detail"]), _LONGEST)
        ),
    )
    rows = table.select(["run", "sample", "norm", "eps", "detail"]).filter(pc.fill_null(wanted, False)).to_pydict()
    found = []
    for run, sample, norm, eps, text in zip(*rows.values(), strict=True):
        try:
            detail = json.loads(text)
        except (ValueError, RecursionError):
            continue
        found += [(run, sample, norm, eps, code, value) for code, value in readings(detail).items()]
    return found


def frame_of(found: Sequence[list[tuple[Any, ...]]]) -> pd.DataFrame:
    """Return what `readings_of` found in several parts as one table."""
    frame = pd.DataFrame([row for part in found for row in part], columns=_COLUMNS)
    return frame.astype({"sample": "int64", "eps": "float64", "value": "float64"})

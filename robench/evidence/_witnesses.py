"""Witness rows: the points behind every `upper`, as raw bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robench.evidence._checks import check_witnesses
from robench.evidence._columns import column, details
from robench.evidence._schema import WITNESSES
from robench.threat import Norm

__all__ = ["WitnessBuilder"]

_BLOCK = 1 << 30  # bytes of points in one arrow array: its offsets are 32-bit


class WitnessBuilder:
    """Collects witnesses of one run; `table` hands them out."""

    def __init__(self, *, run: str) -> None:
        """Take the id of the run that all rows belong to."""
        self._run = run
        self._tables: list[pa.Table] = []

    def __len__(self) -> int:
        """The number of witnesses collected."""
        return sum(len(table) for table in self._tables)

    def add_rows(
        self,
        *,
        evaluator: str,
        norm: Norm,
        eps: Any,
        sample: Any,
        points: npt.ArrayLike,
        linf: Any,
        l2: Any,
        l1: Any,
        prediction: Any,
        margin: Any,
        clean: Sequence[npt.ArrayLike | None] | None = None,
        detail: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | str | None] | None = None,
    ) -> None:
        """Add the witnesses `points` [B, ...] of `sample`, int64 [B], in the model's input dtype.

        Every other argument is one value for all or [B] values; `clean` holds a clean input or None for each.
        Raises ValueError for a shape, dtype or number that does not fit.
        """
        array = np.asarray(points)
        n = len(sample)
        if len(array) != n or array.ndim < 2:
            raise ValueError(f"points have the shape {array.shape}: one point for each of {n} samples is needed")
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        if array.dtype.str not in ("<f4", "<f8"):
            raise ValueError(f"points are {array.dtype}: float32 or float64 is needed")
        if clean is not None and len(clean) != n:
            raise ValueError(f"clean has {len(clean)} entries instead of {n}")
        dtype, shape = array.dtype.str, "x".join(map(str, array.shape[1:]))
        numbers = {
            "sample": sample, "eps": eps, "linf": linf, "l2": l2, "l1": l1, "prediction": prediction, "margin": margin,
        }  # fmt: skip
        words = {"run": self._run, "evaluator": evaluator, "norm": norm, "dtype": dtype, "shape": shape}
        try:
            arrays: dict[str, Any] = {
                name: column(value, WITNESSES.field(name).type, n) for name, value in numbers.items()
            }
            arrays["detail"] = details(detail, n)
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise ValueError(f"witnesses of {evaluator!r}: {error}") from None
        zeros = pa.array(np.zeros(n, np.int32))
        for name, word in words.items():
            arrays[name] = pa.DictionaryArray.from_arrays(zeros, pa.array([word], pa.string()))
        arrays["point"] = _binary(array)
        arrays["clean"] = _clean(clean, array)
        # A chunked `point` splits the others along.
        table = pa.table([arrays[field.name] for field in WITNESSES], schema=WITNESSES)
        check_witnesses(table, "witnesses")
        self._tables.append(table)

    def table(self) -> pa.Table | None:
        """Return the witnesses collected, None where there are none, and start again."""
        tables, self._tables = [table for table in self._tables if len(table)], []
        return pa.concat_tables(tables) if tables else None


def _binary(array: npt.NDArray[Any]) -> pa.ChunkedArray:
    """The raw bytes of each row, without a copy."""
    size = array[0].nbytes if len(array) else 0
    step = max(1, _BLOCK // max(1, size))
    chunks = []
    for start in range(0, len(array), step):
        rows = array[start : start + step]
        offsets = np.arange(len(rows) + 1, dtype=np.int32) * np.int32(size)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(rows)]
        chunks.append(pa.Array.from_buffers(pa.binary(), len(rows), buffers))
    return pa.chunked_array(chunks, pa.binary())


def _clean(clean: Sequence[npt.ArrayLike | None] | None, points: npt.NDArray[Any]) -> pa.Array:
    """Clean inputs as bytes, each in the shape and dtype of its point."""
    if clean is None:
        return pa.nulls(len(points), pa.binary())
    rows: list[bytes | None] = []
    for value in clean:
        if value is None:
            rows.append(None)
            continue
        one = np.asarray(value)
        one = one.astype(one.dtype.newbyteorder("<"))
        if one.shape != points.shape[1:] or one.dtype != points.dtype:
            raise ValueError(f"a clean input is {one.dtype} {one.shape}, its point {points.dtype} {points.shape[1:]}")
        rows.append(one.tobytes())
    return pa.array(rows, pa.binary())

"""Points from witness rows, strictly: what a stranger's file says about sizes is checked before it is used."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robench.errors import DataError

__all__ = ["decode_clean", "decode_point", "decode_points", "parse_shape"]

Floats = npt.NDArray[np.floating[Any]]
_DTYPES: dict[str, np.dtype[Any]] = {"<f4": np.dtype("<f4"), "<f8": np.dtype("<f8")}
_SHAPE = re.compile(r"[1-9][0-9]{0,9}(x[1-9][0-9]{0,9}){0,7}")


def parse_shape(text: object) -> tuple[int, ...]:
    """Parse `1x28x28`. Raises DataError."""
    if not isinstance(text, str) or not _SHAPE.fullmatch(text):
        raise DataError(f"{str(text)[:40]!r} is not a shape such as 1x28x28")
    return tuple(map(int, text.split("x")))


def decode_point(row: Mapping[str, Any]) -> Floats:
    """Return the point of one witness row (a dict of its columns). Raises DataError where sizes do not fit."""
    return _decode(row, row.get("point"))


def decode_clean(row: Mapping[str, Any]) -> Floats | None:
    """Return the clean input of one witness row, or None where the row keeps none."""
    return None if row.get("clean") is None else _decode(row, row["clean"])


def decode_points(table: pa.Table) -> Floats:
    """Return the points [N, ...] of witnesses that share one shape and dtype. Raises DataError otherwise."""
    if not len(table):
        raise DataError("no witnesses to decode")
    kinds = {(row["dtype"], row["shape"]) for row in table.select(["dtype", "shape"]).group_by(
        ["dtype", "shape"]).aggregate([]).to_pylist()}  # fmt: skip
    if len(kinds) != 1:
        raise DataError(f"witnesses differ in shape or dtype: {len(kinds)} kinds in one table")
    dtype, shape = _kind(*kinds.pop())
    size = dtype.itemsize * math.prod(shape)
    values = table.column("point").to_pylist()
    for value in values:
        if not isinstance(value, bytes) or len(value) != size:
            raise DataError(_wrong_size(value, dtype, shape))
    return np.frombuffer(b"".join(values), dtype).reshape(len(values), *shape).astype(dtype.newbyteorder("="))


def _decode(row: Mapping[str, Any], data: object) -> Floats:
    dtype, shape = _kind(row.get("dtype"), row.get("shape"))
    if not isinstance(data, bytes) or len(data) != dtype.itemsize * math.prod(shape):
        raise DataError(_wrong_size(data, dtype, shape))
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _kind(dtype: object, shape: object) -> tuple[np.dtype[Any], tuple[int, ...]]:
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise DataError(f"a witness of dtype {str(dtype)[:20]!r}: <f4 or <f8 is needed")
    return _DTYPES[dtype], parse_shape(shape)


def _wrong_size(data: object, dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    held = f"{len(data)} bytes" if isinstance(data, bytes) else "no point"
    return f"a witness holds {held}, not the {dtype.itemsize * math.prod(shape)} of {dtype.str} {shape}"

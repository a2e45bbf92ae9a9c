"""Columns from whatever the caller holds: scalars, lists, numpy arrays, CPU tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic_core import PydanticSerializationError, to_json

__all__ = ["Names", "codes", "column", "concatenate", "detail_json", "details"]

Array = npt.NDArray[Any]
_NOT_JSON = (PydanticSerializationError, UnicodeError, RecursionError)


class Names:
    """The distinct strings of a dictionary column, in order of appearance."""

    def __init__(self, allowed: Sequence[str] | None = None) -> None:
        self.codes: dict[str, int] = {}
        self._allowed = None if allowed is None else frozenset(allowed)

    def code(self, name: str | None) -> int:
        """The code of `name`, -1 for None. Raises ValueError for a string outside the vocabulary."""
        if name is None:
            return -1
        found = self.codes.get(name)
        if found is None:
            if not isinstance(name, str):
                raise TypeError(f"{name!r} is not a string")
            if self._allowed is not None and name not in self._allowed:
                raise ValueError(f"{name!r} is not one of {', '.join(sorted(self._allowed))}")
            found = self.codes[name] = len(self.codes)
        return found

    def array(self, chunks: list[Array]) -> pa.DictionaryArray:
        """The column whose codes are `chunks`."""
        indices = concatenate(chunks, np.dtype(np.int32))
        return pa.DictionaryArray.from_arrays(
            pa.array(indices, mask=indices < 0 if len(indices) else None), pa.array(list(self.codes), pa.string())
        )


def codes(names: Names, values: str | Sequence[str | None] | Array | None, n: int) -> Array:
    """Codes int32 [n] of one string for all rows, or of one string per row."""
    if values is None or isinstance(values, str):
        return np.full(n, names.code(values), np.int32)
    if isinstance(values, np.ndarray):
        unique, inverse = np.unique(values, return_inverse=True)
        table = np.array([names.code(str(name)) for name in unique], np.int32)
        out = table[inverse.reshape(-1)]
    else:
        known: dict[Any, int] = names.codes
        try:
            out = np.fromiter(map(known.__getitem__, values), np.int32, len(values))
        except KeyError:
            out = np.fromiter(map(names.code, values), np.int32, len(values))
    return _sized(out, n)


def column(values: Any, kind: pa.DataType, n: int) -> pa.Array:
    """`values` (a scalar, None, or [n] of anything numpy or pyarrow reads) as an arrow array [n] of type `kind`.

    Raises ValueError where the length differs or a value does not fit, instead of rounding or wrapping.
    """
    if values is None:
        return pa.nulls(n, kind)
    if isinstance(values, (int, float, np.integer, np.floating)):
        return pa.repeat(pa.scalar(values.item() if isinstance(values, np.generic) else values, kind), n)
    if isinstance(values, (list, tuple)) and any(value is None for value in values):
        made = pa.array(values, kind)
    else:
        array = values if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
        if array.dtype.kind not in "iuf":
            raise ValueError(f"a column of {kind} cannot be made from {array.dtype}")
        made = pa.array(array.reshape(-1))
        if made.type != kind:
            made = made.cast(kind)  # safe: an overflow or a lost fraction raises
    if len(made) != n:
        raise ValueError(f"a column has {len(made)} rows instead of {n}")
    return made


def details(values: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | str | None] | None, n: int) -> pa.Array:
    """JSON details [n] from one for all rows or one per row."""
    if values is None:
        return pa.nulls(n, pa.string())
    if isinstance(values, (str, Mapping)):
        return pa.repeat(pa.scalar(detail_json(values), pa.string()), n)
    try:  # arrow takes UTF-8 bytes as strings: a million dicts a second
        rows = [
            value
            if value is None or isinstance(value, str)
            else to_json(value, inf_nan_mode="strings", fallback=_plain)
            for value in values
        ]
    except _NOT_JSON as error:
        raise ValueError(f"a detail cannot be written as JSON: {error}") from None
    made = pa.array(rows, pa.string())
    if len(made) != n:
        raise ValueError(f"detail has {len(made)} rows instead of {n}")
    return made


def detail_json(detail: str | Mapping[str, Any]) -> str:
    """A detail as strict JSON: NaN and infinities become strings, numpy and tensor scalars plain numbers.

    A string passes as it is. Raises ValueError for what JSON cannot hold.
    """
    if isinstance(detail, str):
        return detail
    try:
        return to_json(detail, inf_nan_mode="strings", fallback=_plain).decode()
    except _NOT_JSON as error:
        raise ValueError(f"a detail cannot be written as JSON: {error}") from None


def _plain(value: Any) -> Any:
    """Numbers and lists of what looks like an array; called only for what JSON does not know."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise ValueError(f"{type(value).__name__} is not JSON")


def concatenate(chunks: list[Array], dtype: np.dtype[Any]) -> Array:
    """One array from many, also from none."""
    return np.concatenate(chunks) if chunks else np.empty(0, dtype)


def _sized(out: Array, n: int) -> Array:
    if len(out) != n:
        raise ValueError(f"a column has {len(out)} rows instead of {n}")
    return out

"""What every table of evidence or witnesses must satisfy, whoever wrote it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from robench.errors import DataError
from robench.evidence._schema import EVIDENCE, KINDS, STATUSES, WITNESSES
from robench.threat import NORMS

__all__ = ["check_evidence", "check_nulls", "check_witnesses", "repeated_key"]

_NULLABLE = {
    EVIDENCE: frozenset({"prediction", "norm", "eps", "confidence", "detail"}),
    WITNESSES: frozenset({"eps", "clean", "detail"}),
}
_WORDS = {"kind": KINDS, "norm": NORMS, "status": STATUSES}
_LONGEST = 20_000  # characters of one name


def check_evidence(table: pa.Table, where: str) -> None:
    """Raise DataError (one line, naming `where`) unless every value is one that the schema allows."""
    check_nulls(table, EVIDENCE, where)
    _check_names(table, EVIDENCE, where)
    for name in ("lower", "upper", "eps", "seconds"):
        _check_range(table, name, 0.0, where)
    _check_range(table, "confidence", 0.0, where, 1.0)
    for name in ("forwards", "backwards", "sample"):
        _check_range(table, name, 0, where)
    _check_range(table, "prediction", -1, where)
    if pc.any(pc.greater(table["lower"], table["upper"])).as_py():
        raise DataError(f"{where}: a row proves lower > upper at once")


def check_witnesses(table: pa.Table, where: str) -> None:
    """Raise DataError (one line, naming `where`) unless every value is one that the schema allows."""
    check_nulls(table, WITNESSES, where)
    _check_names(table, WITNESSES, where)
    for name in ("linf", "l2", "l1", "eps", "sample"):
        _check_range(table, name, 0, where)


def repeated_key(table: pa.Table) -> tuple[Any, ...] | None:
    """Return a (sample, evaluator, norm, ε) that two rows share, or None."""
    n = len(table)
    if n < 2:
        return None
    key = table["sample"].to_numpy()
    for name in ("evaluator", "norm", "eps"):
        codes, size = _dense(table[name])
        low, high = int(key.min()), int(key.max())
        if (high - low + 1) * size > 2**62:  # no room: number the keys so far densely
            _, key = np.unique(key, return_inverse=True)
            low = 0
        key = (key - low) * size + codes
    ordered = np.argsort(key, kind="stable")
    same = np.flatnonzero(key[ordered[1:]] == key[ordered[:-1]])
    if not len(same):
        return None
    row = int(ordered[same[0]])
    return tuple(table[name][row].as_py() for name in ("sample", "evaluator", "norm", "eps"))


def _dense(values: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], int]:
    """Codes of the values, nulls included, int64 [N], and how many codes there are."""
    encoded = values.combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks)
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    codes = pc.fill_null(encoded.indices, len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    return codes.astype(np.int64), len(encoded.dictionary) + 1


def check_nulls(table: pa.Table, schema: pa.Schema, where: str) -> None:
    """Raise DataError where one of the table's columns holds a null that the schema does not know."""
    for name in table.column_names:
        if name in schema.names and name not in _NULLABLE[schema] and table[name].null_count:
            raise DataError(f"{where}: column {name} holds nulls")


def _check_names(table: pa.Table, schema: pa.Schema, where: str) -> None:
    """Names from strangers reach terminals and pages: printable, of a sane length, of the vocabulary."""
    for field in schema:
        if not pa.types.is_dictionary(field.type):
            continue
        for word in table[field.name].unique().to_pylist():
            allowed = _WORDS.get(field.name)
            if word is None:  # an index without a value, or one that points at a null
                if field.name not in _NULLABLE[schema]:
                    raise DataError(f"{where}: column {field.name} holds nulls")
                continue
            if allowed and word not in allowed:
                raise DataError(f"{where}: {field.name} {word[:40]!r} is not one of {', '.join(allowed)}")
            if len(word) > _LONGEST or not word.isprintable():
                raise DataError(f"{where}: {field.name} {word[:40]!r} is too long or holds control characters")


def _check_range(table: pa.Table, name: str, least: float, where: str, most: float | None = None) -> None:
    values = table[name]
    if values.null_count == len(values):
        return
    bounds = pc.min_max(values).as_py()
    nan = pa.types.is_floating(values.type) and pc.any(pc.is_nan(values)).as_py()
    if nan or bounds["min"] < least or (most is not None and bounds["max"] > most):
        limits = f"at least {least:g}" if most is None else f"in {least:g} … {most:g}"
        raise DataError(f"{where}: column {name} must be {limits}, not {'nan' if nan else bounds}")

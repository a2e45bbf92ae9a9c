"""The versioned schema of evidence and witnesses: the one place that knows the columns.

Evidence has one row per (run, sample, evaluator, norm, ε). Witnesses keep the point behind every `upper`.
"""

from __future__ import annotations

from typing import Literal, get_args

import pyarrow as pa

__all__ = ["EVIDENCE", "KINDS", "SCHEMA_VERSION", "STATUSES", "WITNESSES", "Kind", "Status"]

SCHEMA_VERSION = 1

Kind = Literal["clean", "attack", "certificate", "verifier"]
Status = Literal["correct", "incorrect", "certified", "falsified", "open", "abstain", "timeout", "error"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STATUSES: tuple[Status, ...] = get_args(Status)

_name = pa.dictionary(pa.int32(), pa.string())
_metadata = {"robench_schema": str(SCHEMA_VERSION)}

EVIDENCE = pa.schema(
    [
        ("run", _name),
        ("classifier", _name),
        ("fingerprint", _name),
        ("dataset", _name),
        ("dataset_hash", _name),
        ("split", _name),
        ("sample", pa.int64()),
        ("label", pa.int32()),
        ("prediction", pa.int32()),  # clean prediction; -1 abstains; null: error
        ("evaluator", _name),
        ("kind", _name),
        ("norm", _name),  # null on clean rows
        ("eps", pa.float64()),  # null: clean row, minimum-norm search, or a radius
        ("lower", pa.float64()),  # this row proves lower <= r* (closed ball)
        ("upper", pa.float64()),  # ... and r* <= upper; +inf says nothing
        ("confidence", pa.float64()),  # 1.0, or 1 - alpha; null where a source does not tell
        ("status", _name),
        ("forwards", pa.int64()),
        ("backwards", pa.int64()),
        ("seconds", pa.float64()),
        ("detail", pa.string()),  # JSON, or null
    ],
    metadata=_metadata,
)

WITNESSES = pa.schema(
    [
        ("run", _name),
        ("sample", pa.int64()),
        ("evaluator", _name),
        ("norm", _name),  # the threat searched
        ("eps", pa.float64()),
        ("point", pa.binary()),  # raw little-endian bytes in the model's input dtype
        ("clean", pa.binary()),  # the clean input too, for the first GALLERY samples; else null
        ("linf", pa.float64()),  # distances in float64, rounded up
        ("l2", pa.float64()),
        ("l1", pa.float64()),
        ("prediction", pa.int32()),
        ("margin", pa.float64()),
        ("dtype", _name),  # "<f4" or "<f8"
        ("shape", _name),  # "1x28x28"
        ("detail", pa.string()),  # how it was verified (JSON), or null
    ],
    metadata=_metadata,
)

"""The rows of a bound and their Parquet form: one per ε, validated whoever wrote them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from robench.bounds._manifest import MOST_EPSILONS, BoundManifest, facts_of
from robench.errors import DataError
from robench.evidence import detail_json
from robench.text import one_line
from robench.threat import Epsilon, Norm

__all__ = ["DIRECTIONS", "SCOPES", "BoundRow", "from_parquet", "sentence_problem", "to_parquet"]

Direction = Literal["ceiling", "floor"]
Scope = Literal["samples", "population"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
SCOPES: tuple[Scope, ...] = get_args(Scope)

_LARGEST: Final = 64 << 20  # bytes of a file once decompressed
_LONGEST: Final = 2000  # characters of a sentence

_TEXT = ("norm", "direction", "scope", "samples_hash", "assumptions", "source")
_SCHEMA = pa.schema(
    [
        ("norm", pa.string()),
        ("eps", pa.float64()),
        ("value", pa.float64()),  # robust accuracy, rounded to the safe side
        ("direction", pa.string()),
        ("scope", pa.string()),
        ("samples_hash", pa.string()),  # the samples that it is about, as in the manifests of runs
        ("assumptions", pa.string()),
        ("source", pa.string()),
        ("detail", pa.string()),  # JSON, or null
    ],
    metadata={"robench_bound_schema": "1"},
)


@dataclass(frozen=True)
class BoundRow:
    """A bound at one ε: no classifier's robust accuracy on those samples is above `value` (a ceiling).

    Attributes:
        norm: the norm.
        eps: the budget, as given.
        value: robust accuracy, 0 … 1.
        direction: `ceiling` or `floor`.
        scope: `samples` (exactly these) or `population`.
        samples_hash: sha256 of the indices of the samples.
        assumptions: what must hold, in one line.
        source: paper and equation.
        detail: the bound's own figures at this ε, or None.
    """

    norm: Norm
    eps: Epsilon
    value: float
    direction: Direction
    scope: Scope
    samples_hash: str
    assumptions: str
    source: str
    detail: Mapping[str, Any] | None = None


def sentence_problem(text: object) -> str | None:
    """Say why `text` cannot stand as a sentence in a table; None where it can."""
    if not isinstance(text, str):
        return f"is no text but {type(text).__name__}"
    if len(text) > _LONGEST or not text.isprintable():
        return f"is longer than {_LONGEST} characters or holds control characters"
    return None


def to_parquet(rows: Sequence[BoundRow]) -> bytes:
    """Return the rows as Parquet."""
    plain = [
        {
            **{name: getattr(row, name) for name in ("value", *_TEXT)},
            "eps": row.eps.value,
            "detail": None if row.detail is None else detail_json(row.detail),
        }
        for row in rows
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(plain, _SCHEMA), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def from_parquet(data: bytes, manifest: BoundManifest, where: str) -> tuple[BoundRow, ...]:
    """Read the rows that `manifest` promises. Raises DataError, one line naming `where`, for anything else."""
    try:
        metadata = pq.read_metadata(pa.BufferReader(data))
        size = sum(metadata.row_group(place).total_byte_size for place in range(metadata.num_row_groups))
        if metadata.num_rows > MOST_EPSILONS or size > _LARGEST:
            raise DataError(f"{where}: {metadata.num_rows} rows of {size} bytes, more than can be right")
        file = pq.ParquetFile(pa.BufferReader(data))
        if not file.schema_arrow.equals(_SCHEMA):
            raise DataError(f"{where}: a foreign Parquet file: not the columns of a bound")
        if (file.schema_arrow.metadata or {}).get(b"robench_bound_schema") != b"1":
            raise DataError(f"{where}: written by another robench (this one reads schema 1): upgrade")
        table = file.read()
        table.validate(full=True)
        rows = table.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{where}: not a readable Parquet file ({one_line(str(error), 120)})") from None
    if [row["eps"] for row in rows] != [eps.value for eps in manifest.epsilons]:
        raise DataError(f"{where}: the rows are not about the ε of the manifest, one row each")
    return tuple(
        _row(row, eps, manifest, f"{where}: ε = {eps.text}") for row, eps in zip(rows, manifest.epsilons, strict=True)
    )


def _row(row: dict[str, Any], eps: Epsilon, manifest: BoundManifest, where: str) -> BoundRow:
    for name in ("value", *_TEXT):
        if row[name] is None:
            raise DataError(f"{where}: no {name}")
    for name, allowed in (
        ("norm", (manifest.norm,)),
        ("samples_hash", (manifest.dataset.samples_hash,)),
        ("direction", DIRECTIONS),
        ("scope", SCOPES),
    ):
        if row[name] not in allowed:
            raise DataError(f"{where}: {name} {row[name][:40]!r} is not {' or '.join(map(str, allowed))}")
    if not (math.isfinite(row["value"]) and 0 <= row["value"] <= 1):
        raise DataError(f"{where}: value {row['value']} is no accuracy in 0 … 1")
    for name in ("assumptions", "source"):
        if problem := sentence_problem(row[name]):
            raise DataError(f"{where}: {name} {problem}")
    try:
        detail = None if row["detail"] is None else facts_of(row["detail"])
    except ValueError as error:
        raise DataError(f"{where}: detail {error}") from None
    return BoundRow(**{**row, "eps": eps, "detail": detail})

"""Tables to Parquet bytes and back; files of others are validated, older schema versions migrated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from robench.errors import DataError
from robench.evidence._checks import check_evidence, check_nulls, check_witnesses
from robench.evidence._schema import EVIDENCE, SCHEMA_VERSION, WITNESSES
from robench.text import one_line

__all__ = ["MIGRATIONS", "from_parquet", "to_parquet"]

TableKind = Literal["evidence", "witnesses"]

_SCHEMAS: dict[TableKind, pa.Schema] = {"evidence": EVIDENCE, "witnesses": WITNESSES}
_KEY = b"robench_schema"
_MOST_ROWS = 2**27  # in one part; more is a file built to exhaust memory

# From a version to the next one; readers chain them.
MIGRATIONS: dict[tuple[TableKind, int], Callable[[pa.Table], pa.Table]] = {}


def to_parquet(table: pa.Table) -> bytes:
    """Return a table of EVIDENCE or WITNESSES as Parquet (zstd, dictionaries)."""
    schema = EVIDENCE if "status" in table.column_names else WITNESSES
    if not table.schema.equals(schema):
        raise ValueError("only tables of the evidence or witness schema are stored")
    sink = pa.BufferOutputStream()
    # Dictionaries for numbers too: radii and counts of one sample repeat from ε to ε.
    pq.write_table(table.replace_schema_metadata(schema.metadata), sink, compression="zstd", use_dictionary=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def from_parquet(
    source: bytes | BinaryIO, kind: TableKind, where: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read and validate a part; `columns` reads some only (then only nulls are checked).

    Raises DataError, one line naming `where`, for what is truncated, foreign, newer or out of range.
    """
    schema = _SCHEMAS[kind]
    stream = pa.BufferReader(source) if isinstance(source, bytes) else source
    try:
        metadata = pq.read_metadata(stream)
        version = _version(metadata.metadata, where, kind)
        if metadata.num_rows > _MOST_ROWS:
            raise DataError(f"{where}: {metadata.num_rows} rows in one part, more than can be right")
        there = {metadata.schema.column(place).path for place in range(metadata.num_columns)}
        words = [field.name for field in schema if pa.types.is_dictionary(field.type) and field.name in there]
        file = pq.ParquetFile(stream, metadata=metadata, read_dictionary=words)
        current = version == SCHEMA_VERSION
        if current:
            _check_columns(file.schema_arrow, schema, where)
        table = file.read(columns=list(columns) if columns is not None and current else None)
        table.validate(full=True)
        if not current:
            for step in range(version, SCHEMA_VERSION):
                table = MIGRATIONS[kind, step](table)
            _check_columns(table.schema, schema, where)
            table = table if columns is None else table.select(columns)
        if columns is not None:
            check_nulls(table, schema, where)
            return table
        table = table.select(schema.names).cast(schema).replace_schema_metadata(schema.metadata)
        (check_evidence if kind == "evidence" else check_witnesses)(table, where)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{where}: not a readable Parquet file ({one_line(str(error), 120)})") from None
    return table


def _version(metadata: dict[bytes, bytes] | None, where: str, kind: TableKind) -> int:
    text = (metadata or {}).get(_KEY, b"")
    if not text.isdigit() or len(text) > 6:
        raise DataError(f"{where}: a foreign Parquet file, without robench's schema version")
    version = int(text)
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{where}: written by a newer robench (schema {version}, this one reads up to {SCHEMA_VERSION}): upgrade"
        )
    if any((kind, step) not in MIGRATIONS for step in range(version, SCHEMA_VERSION)):
        raise DataError(f"{where}: schema version {version} is unknown")
    return version


def _check_columns(found: pa.Schema, schema: pa.Schema, where: str) -> None:
    missing = [name for name in schema.names if name not in found.names]
    extra = [name for name in found.names if name not in schema.names]
    if missing or extra or len(found.names) != len(schema.names):
        strange = (extra or found.names)[0][:60]
        what = f"no column {missing[0]}" if missing else f"an unknown or repeated column {strange!r}"
        raise DataError(f"{where}: a foreign Parquet file with {what}")
    for field in schema:
        kind = found.field(field.name).type
        same = kind == field.type or (
            pa.types.is_dictionary(field.type) and pa.types.is_dictionary(kind) and kind.value_type == pa.string()
        )
        if not same:
            raise DataError(f"{where}: column {field.name} is {kind}, not {field.type}")

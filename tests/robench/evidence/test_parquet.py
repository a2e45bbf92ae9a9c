"""Parquet of strangers: foreign, truncated, newer and older files, each answered in one line."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recorded import part
from robench.errors import DataError
from robench.evidence import EVIDENCE, _parquet, check_evidence, from_parquet, to_parquet
from robench.evidence._checks import repeated_key

RUN = "20260101T000000Z-000000"


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return part(RUN, range(5))[0]


def raw(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def refused(data: bytes, why: str, kind: Any = "evidence", **options: Any) -> None:
    with pytest.raises(DataError, match=why) as caught:
        from_parquet(data, kind, "some/part.parquet", **options)
    assert str(caught.value).startswith("some/part.parquet: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_any_writer_of_the_same_schema_is_read(table: pa.Table) -> None:
    """Another library need not keep arrow's own copy of the schema, nor the order of columns."""
    mixed = table.select(sorted(table.column_names))
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, mixed.schema, store_schema=False, compression="snappy") as writer:
        writer.write_table(mixed)
        writer.add_key_value_metadata({"robench_schema": "1"})
    assert b"ARROW:schema" not in pq.read_metadata(sink).metadata
    assert from_parquet(sink.getvalue(), "evidence", "part").equals(table)
    assert from_parquet(io.BytesIO(to_parquet(table)), "evidence", "part").equals(table)


def test_some_columns_only(table: pa.Table) -> None:
    some = from_parquet(to_parquet(table), "evidence", "part", ("sample",))
    assert some.column_names == ["sample"]
    holes = with_column(table, "sample", pa.array([None] + [1] * (len(table) - 1), pa.int64()))
    refused(raw(holes), "sample holds nulls", columns=("sample",))


def test_foreign_files(table: pa.Table) -> None:
    refused(b"", "not a readable Parquet")
    refused(b"PAR1", "not a readable Parquet")
    refused(b"not parquet at all" * 100, "not a readable Parquet")
    refused(raw(pa.table({"x": [1]})), "foreign Parquet file, without")
    frame = io.BytesIO()
    pd.DataFrame({"sample": np.arange(3)}).to_parquet(frame)
    refused(frame.getvalue(), "foreign Parquet file, without")
    refused(to_parquet(table), "no column point", kind="witnesses")
    refused(raw(table.drop_columns("lower")), "no column lower")
    refused(raw(table.append_column("mine", table["lower"])), "unknown or repeated column 'mine'")
    refused(raw(table.append_column("lower", table["lower"])), "unknown or repeated")
    refused(raw(with_column(table, "lower", table["lower"].cast(pa.float32()))), "lower is float, not double")
    refused(raw(with_column(table, "status", table["sample"])), "status is int64")
    refused(raw(with_column(table, "sample", table["detail"])), "sample is string")


def test_values_out_of_range(table: pa.Table) -> None:
    n = len(table)
    refused(raw(with_column(table, "lower", pa.array(np.full(n, np.nan)))), "lower must be")
    refused(raw(with_column(table, "lower", pa.nulls(n, pa.float64()))), "lower holds nulls")
    words = pa.array(["solved"] * n).dictionary_encode()
    refused(raw(with_column(table, "status", words)), "status 'solved' is not one of")
    escape = pa.array(["\x1b]0;title\x07"] * n).dictionary_encode()
    refused(raw(with_column(table, "classifier", escape)), "control characters")
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.int32([0, 2])), pa.py_buffer(b"\xff\xfe")])
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), bad)
    refused(raw(with_column(table, "classifier", names)), "UTF8|utf-8")


def test_too_many_rows(table: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parquet, "_MOST_ROWS", 4)
    refused(to_parquet(table), "rows in one part")


@pytest.mark.parametrize(
    ("version", "why"),
    [("2", "newer robench .schema 2, this one reads up to 1.: upgrade"), ("0", "version 0 is unknown"),
     ("", "foreign"), ("-1", "foreign"), ("1.0", "foreign"), ("9" * 40, "foreign"), ("²", "foreign")],
)  # fmt: skip
def test_versions(table: pa.Table, version: str, why: str) -> None:
    refused(raw(table.replace_schema_metadata({"robench_schema": version})), why)


def test_older_versions_are_migrated(table: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """As schema 3 would read schema 1, where `upper` was called `radius` and `confidence` did not exist."""
    names = ["radius" if name == "upper" else name for name in table.column_names if name != "confidence"]
    old = raw(table.drop_columns("confidence").rename_columns(names).replace_schema_metadata(table.schema.metadata))
    steps: dict[tuple[str, int], Callable[[pa.Table], pa.Table]] = {
        ("evidence", 1): lambda t: t.rename_columns(["upper" if n == "radius" else n for n in t.column_names]),
        ("evidence", 2): lambda t: t.append_column("confidence", pa.array(np.ones(len(t)))),
    }
    monkeypatch.setattr(_parquet, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(_parquet, "MIGRATIONS", steps)
    read = from_parquet(old, "evidence", "part")
    assert read.equals(table)
    assert from_parquet(old, "evidence", "part", ("confidence", "sample")).column_names == ["confidence", "sample"]
    del steps["evidence", 2]
    refused(old, "version 1 is unknown")
    steps["evidence", 2] = lambda t: t
    refused(old, "no column confidence")


def test_every_version_has_its_migrations() -> None:
    versions = range(1, _parquet.SCHEMA_VERSION)
    assert set(_parquet.MIGRATIONS) == {(kind, version) for kind in ("evidence", "witnesses") for version in versions}


def test_truncated_files(table: pa.Table) -> None:
    data = to_parquet(table)
    for length in range(0, len(data), 97):
        refused(data[:length], "not a readable Parquet|foreign")


def test_damaged_files_are_refused_or_read_as_valid(table: pa.Table) -> None:
    data = to_parquet(table)
    source = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(source.choice((1, 1, 4, 30))):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        try:
            read = from_parquet(bytes(damaged), "evidence", "part")
        except DataError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
        else:
            assert read.schema.equals(EVIDENCE)
            check_evidence(read, "part")
            outcomes["read"] += 1
    assert outcomes["refused"] > 100


def test_repeated_keys_by_brute_force() -> None:
    source = random.Random(1)
    seen = {True: 0, False: 0}
    words = pa.dictionary(pa.int32(), pa.string())
    for _ in range(200):
        n = source.randrange(0, 9)
        far = source.choice((1, 2**61))  # too far apart to be packed into one integer
        keys = [
            (
                source.randrange(3) * far,
                source.choice("ab"),
                source.choice([None, "l2"]),
                source.choice([None, 0.1, 0.2]),
            )
            for _ in range(n)
        ]
        columns = [pa.array([key[at] for key in keys], kind) for at, kind in
                   enumerate((pa.int64(), words, words, pa.float64()))]  # fmt: skip
        found = repeated_key(pa.table(columns, names=["sample", "evaluator", "norm", "eps"]))
        assert (found is None) == (len(set(keys)) == n)
        assert found is None or keys.count(found) > 1
        seen[found is None] += 1
    assert min(seen.values()) > 20

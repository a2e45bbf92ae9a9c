"""Rows in, rows out: nothing is rounded, wrapped or lost on the way."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robench.errors import DataError
from robench.evidence import EVIDENCE, KINDS, STATUSES, EvidenceBuilder, detail_json, from_parquet, to_parquet
from robench.threat import NORMS

SHARED = {
    "run": "20260101T000000Z-000000",
    "classifier": "onnx:net.onnx@sha256:0123456789ab",
    "fingerprint": "a" * 64,
    "dataset": "digits",
    "dataset_hash": "b" * 64,
    "split": "test",
}

radii = st.floats(0, allow_nan=False)
ROW = st.fixed_dictionaries(
    {
        "sample": st.integers(0, 2**63 - 1),
        "label": st.integers(-(2**31), 2**31 - 1),
        "prediction": st.none() | st.integers(-1, 2**31 - 1),
        "evaluator": st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=20),
        "kind": st.sampled_from(KINDS),
        "norm": st.none() | st.sampled_from(NORMS),
        "eps": st.none() | radii,
        "bounds": st.tuples(radii, radii).map(sorted),
        "confidence": st.none() | st.floats(0, 1),
        "status": st.sampled_from(STATUSES),
        "forwards": st.integers(0, 2**63 - 1),
        "backwards": st.integers(0, 2**63 - 1),
        "seconds": st.floats(0, allow_infinity=False),
        "detail": st.none()
        | st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=5), max_size=3),
    }
)


@given(batches=st.lists(st.lists(ROW, max_size=5), max_size=4))
def test_rows_survive_parquet(batches: list[list[dict[str, Any]]]) -> None:
    builder = EvidenceBuilder(**SHARED)
    expected = []
    for batch in batches:
        columns: dict[str, Any] = {name: [row[name] for row in batch] for name in ROW_NAMES}
        columns["lower"] = np.array([row["bounds"][0] for row in batch], np.float64)
        columns["upper"] = [row["bounds"][1] for row in batch]
        columns["sample"] = np.array(columns["sample"], np.int64)
        builder.add_rows(**columns)
        for row in batch:
            lower, upper = row["bounds"]
            flat = {**SHARED, **{name: row[name] for name in ROW_NAMES}, "lower": lower, "upper": upper}
            flat["detail"] = None if row["detail"] is None else json.dumps(row["detail"])
            expected.append(flat)
    assert len(builder) == len(expected)
    table = builder.table()
    assert len(builder) == 0
    assert table.schema.equals(EVIDENCE, check_metadata=True)
    back = from_parquet(to_parquet(table), "evidence", "part")
    assert back.schema.equals(EVIDENCE, check_metadata=True)
    assert back.equals(table)
    found = back.to_pylist()
    for row in (*found, *expected):
        row["detail"] = row["detail"] and json.loads(row["detail"])
    assert found == expected


ROW_NAMES = ("sample", "label", "prediction", "evaluator", "kind", "norm", "eps", "confidence", "status", "forwards",
             "backwards", "seconds", "detail")  # fmt: skip


def builder_with(**changes: Any) -> EvidenceBuilder:
    builder = EvidenceBuilder(**SHARED)
    fields: dict[str, Any] = {
        "sample": np.arange(3), "label": np.arange(3), "prediction": [0, None, 2], "evaluator": "pgd",
        "kind": "attack", "norm": "linf", "eps": 0.1, "lower": 0.0, "upper": np.inf, "status": "open",
    }  # fmt: skip
    builder.add_rows(**{**fields, **changes})
    return builder


@pytest.mark.parametrize(
    ("name", "given", "stored"),
    [
        ("upper", [1, 2, 3], [1.0, 2.0, 3.0]),
        ("upper", np.float32([0.5, 1.5, np.inf]), [0.5, 1.5, math.inf]),
        ("upper", np.float64(0.25), [0.25] * 3),
        ("forwards", np.array([1.0, 2.0, 3.0]), [1, 2, 3]),
        ("forwards", np.int16(7), [7, 7, 7]),
        ("prediction", np.ma.masked_equal(np.int64([4, -1, 5]), 5), [4, -1, None]),
        ("prediction", None, [None] * 3),
        ("eps", None, [None] * 3),
        ("confidence", [1.0, None, 0.999], [1.0, None, 0.999]),
        ("status", np.array(["open", "error", "open"]), ["open", "error", "open"]),
        ("norm", ["l2", None, "l1"], ["l2", None, "l1"]),
        ("detail", '{"a": 1}', ['{"a": 1}'] * 3),
        ("detail", [None, {"a": np.float32(0.5)}, "{}"], [None, '{"a":0.5}', "{}"]),
    ],
)
def test_columns_from_what_callers_hold(name: str, given: Any, stored: list[Any]) -> None:
    assert builder_with(**{name: given}).table()[name].to_pylist() == stored


def test_tensors_are_columns() -> None:
    import torch

    upper = torch.tensor([0.1, 0.2, math.inf], dtype=torch.float64)
    assert builder_with(upper=upper).table()["upper"].to_pylist() == upper.tolist()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("label", [0, 2**31, 0]),  # would wrap
        ("forwards", [0.5, 1.0, 1.0]),  # would be cut
        ("forwards", np.array([np.nan, 1, 1])),
        ("lower", [0.0, 0.0]),
        ("lower", np.zeros((3, 2))),
        ("lower", ["0", "0", "0"]),
        ("lower", "0"),
        ("forwards", np.array([True, False, True])),
        ("status", ["open", "open"]),
        ("status", ["open", "fine", "open"]),
        ("status", np.array(["open", "fine", "open"])),
        ("kind", "probe"),
        ("norm", "l7"),
        ("evaluator", ["pgd", 3, "pgd"]),
        ("detail", [None]),
        ("detail", [{"a": object()}, None, None]),
    ],
)
def test_what_does_not_fit_is_refused_before_any_row(name: str, given: Any) -> None:
    builder = builder_with()
    with pytest.raises(ValueError):
        builder.add_rows(**{**ARGUMENTS, name: given})
    assert len(builder) == 3
    assert len(builder.table()) == 3


ARGUMENTS: dict[str, Any] = {
    "sample": np.arange(3), "label": 0, "prediction": 0, "evaluator": "pgd", "kind": "attack", "norm": "linf",
    "eps": 0.1, "lower": 0.0, "upper": np.inf, "status": "open",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lower": math.nan}, "lower must be at least 0"),
        ({"lower": -0.1}, "lower must be at least 0"),
        ({"upper": [0.1, math.nan, 0.1]}, "upper must be at least 0"),
        ({"lower": 0.3, "upper": 0.2}, "lower > upper"),
        ({"eps": -0.1}, "eps must be"),
        ({"confidence": 1.5}, r"confidence must be in 0 … 1"),
        ({"prediction": -2}, "prediction must be at least -1"),
        ({"sample": np.array([-1])}, "sample must be"),
        ({"forwards": -1}, "forwards must be"),
        ({"seconds": math.nan}, "seconds must be"),
        ({"lower": None}, "lower holds nulls"),
        ({"label": [0, None, 0]}, "label holds nulls"),
        ({"status": [None] * 3}, "status holds nulls"),
        ({"evaluator": "a\x1b[31m"}, "control characters"),
    ],
)
def test_tables_hold_only_what_the_schema_allows(changes: dict[str, Any], why: str) -> None:
    builder = EvidenceBuilder(**SHARED)
    builder.add_rows(**{**ARGUMENTS, **changes})
    with pytest.raises(DataError, match=why) as caught:
        builder.table()
    assert "\n" not in str(caught.value)


def test_no_rows_are_a_table_too() -> None:
    table = EvidenceBuilder(**SHARED).table()
    assert table.schema.equals(EVIDENCE)
    assert len(from_parquet(to_parquet(table), "evidence", "part")) == 0


def test_details_are_strict_json() -> None:
    text = detail_json({"nan": math.nan, "inf": -math.inf, "array": np.arange(3), "n": np.int64(4), "ε": (1, None)})
    plain = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert plain == {"nan": "NaN", "inf": "-Infinity", "array": [0, 1, 2], "n": 4, "ε": [1, None]}
    circle: dict[str, Any] = {}
    circle["circle"] = circle
    with pytest.raises(ValueError, match="JSON"):
        detail_json(circle)


def test_only_tables_of_the_schema_are_stored() -> None:
    with pytest.raises(ValueError, match="evidence or witness schema"):
        to_parquet(pa.table({"status": ["open"]}))

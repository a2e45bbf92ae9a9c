"""Witness points come back to the bit, and sizes that a file claims are never believed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from robench.errors import DataError
from robench.evidence import (
    WITNESSES,
    WitnessBuilder,
    _witnesses,
    decode_clean,
    decode_point,
    decode_points,
    from_parquet,
    to_parquet,
)

RUN = "20260101T000000Z-000000"
NUMBERS: dict[str, Any] = {
    "evaluator": "pgd", "norm": "l2", "eps": 0.5, "linf": 0.1, "l2": 0.2, "l1": 0.3, "prediction": 1, "margin": -0.5,
}  # fmt: skip
FLOATS = st.sampled_from([np.dtype("<f4"), np.dtype("<f8"), np.dtype(">f8")])
SHAPES = arrays.array_shapes(min_dims=2, max_dims=4, max_side=4)


@given(points=FLOATS.flatmap(lambda dtype: arrays.arrays(dtype, SHAPES)), data=st.data())
def test_points_come_back_to_the_bit(points: np.ndarray[Any, Any], data: st.DataObject) -> None:
    keep = data.draw(st.lists(st.booleans(), min_size=len(points), max_size=len(points)))
    clean = [-one if kept else None for one, kept in zip(points, keep, strict=True)]
    builder = WitnessBuilder(run=RUN)
    builder.add_rows(**NUMBERS, sample=np.arange(len(points)), points=points, clean=clean)
    made = builder.table()
    assert made is not None
    table = from_parquet(to_parquet(made), "witnesses", "part")
    assert table.schema.equals(WITNESSES, check_metadata=True)
    assert decode_points(table).tobytes() == points.astype(points.dtype.newbyteorder("=")).tobytes()
    for row, point, kept in zip(table.to_pylist(), points, clean, strict=True):
        one = decode_point(row)
        assert (one.shape, one.dtype) == (point.shape, point.dtype.newbyteorder("="))
        assert one.tobytes() == point.astype(one.dtype).tobytes()
        again = decode_clean(row)
        assert (again is None) == (kept is None)
        assert again is None or again.tobytes() == kept.astype(again.dtype).tobytes()


def test_points_beyond_one_array_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """An arrow array of bytes holds at most 2**31 of them; here, 100."""
    monkeypatch.setattr(_witnesses, "_BLOCK", 100)
    points = np.arange(60, dtype=np.float64).reshape(10, 6)
    builder = WitnessBuilder(run=RUN)
    builder.add_rows(**NUMBERS, sample=np.arange(10), points=points)
    made = builder.table()
    assert made is not None
    assert made["point"].num_chunks == 5
    assert (decode_points(from_parquet(to_parquet(made), "witnesses", "part")) == points).all()


def test_several_kinds_of_points_in_one_table() -> None:
    builder = WitnessBuilder(run=RUN)
    builder.add_rows(**NUMBERS, sample=[0], points=np.zeros((1, 3), np.float32))
    builder.add_rows(**NUMBERS, sample=[1], points=np.ones((1, 2, 2)), detail={"method": "float64"})
    assert len(builder) == 2
    made = builder.table()
    assert made is not None
    table = from_parquet(to_parquet(made), "witnesses", "part")
    assert [decode_point(row).shape for row in table.to_pylist()] == [(3,), (2, 2)]
    assert table["detail"].to_pylist() == [None, '{"method":"float64"}']
    with pytest.raises(DataError, match="differ in shape or dtype"):
        decode_points(table)
    assert builder.table() is None


@pytest.mark.parametrize(
    "changes",
    [
        {"points": np.zeros((2, 3))},
        {"points": np.zeros(1)},
        {"points": np.zeros((1, 3), np.int64)},
        {"points": np.zeros((1, 3), np.float16)},
        {"clean": []},
        {"clean": [np.zeros(2)]},
        {"clean": [np.zeros(3, np.float32)]},
        {"l2": [0.1, 0.2]},
        {"prediction": 2**31},
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any]) -> None:
    builder = WitnessBuilder(run=RUN)
    with pytest.raises(ValueError):
        builder.add_rows(**{**NUMBERS, "sample": [0], "points": np.zeros((1, 3)), **changes})
    assert len(builder) == 0


@pytest.mark.parametrize(
    "changes",
    [{"linf": math.nan}, {"l2": -0.1}, {"eps": math.nan}, {"norm": None}, {"sample": np.array([-1])},
     {"margin": None}, {"evaluator": "a\nb"}],
)  # fmt: skip
def test_numbers_are_checked(changes: dict[str, Any]) -> None:
    with pytest.raises((DataError, ValueError)):
        WitnessBuilder(run=RUN).add_rows(**{**NUMBERS, "sample": [0], "points": np.zeros((1, 3)), **changes})


GOOD = {"point": np.zeros(6, np.float32).tobytes(), "dtype": "<f4", "shape": "1x2x3", "clean": None}


def test_the_good_row_is_good() -> None:
    assert decode_point(GOOD).shape == (1, 2, 3)
    assert decode_clean(GOOD) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"point": b""}, {"point": b"\0" * 23}, {"point": b"\0" * 25}, {"point": None}, {"point": "text"},
        {"dtype": "<f8"}, {"dtype": "|O"}, {"dtype": "object"}, {"dtype": ">f4"}, {"dtype": None}, {"dtype": 3},
        {"shape": ""}, {"shape": "1x2x-3"}, {"shape": "0x6"}, {"shape": "1x2x3x"}, {"shape": "6 "}, {"shape": "٦"},
        {"shape": "6\n"}, {"shape": None}, {"shape": (1, 2, 3)}, {"shape": "9999999999x9999999999x9999999999"},
        {"shape": "1x1x1x1x1x1x1x1x6"},
    ],
)  # fmt: skip
def test_hostile_sizes(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        decode_point({**GOOD, **changes})
    assert "\n" not in str(caught.value)
    clean = {"clean" if name == "point" else name: value for name, value in changes.items()}
    if clean.get("clean", b"") is not None:
        with pytest.raises(DataError):
            decode_clean({**GOOD, "clean": GOOD["point"], **clean})


def test_an_empty_table_has_no_points() -> None:
    with pytest.raises(DataError, match="no witnesses"):
        decode_points(WITNESSES.empty_table())

"""Labelled arrays from a NumPy .npz file."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from robench import param
from robench.errors import DataError, InputError
from robench.samples import ArraySource, Samples
from robench.threat import Domain
from robench_plugins.datasets._members import Archive

__all__ = ["Npz"]

_BLOCK: Final = 16 << 20  # bytes looked at together when inputs are checked

# Integers up to 16 bits are exact in float32, wider ones (pixels never are) in float64 up to 2**53.
_FLOAT: Final = {"f2": "<f4", "f4": "<f4", "f8": "<f8", "i1": "<f4", "i2": "<f4", "u1": "<f4", "u2": "<f4"}


@dataclass(frozen=True)
class Npz:
    """Inputs and labels from an .npz file: `x` [N, ...] and `y` [N], or `x_train`, `y_train`, `x_test`, `y_test`.

    Plain `x` and `y` are the split `test`; any pair `x_NAME`, `y_NAME` is the split NAME. `x` holds floats or integers
    in the domain, `y` integers from 0 on. `domain` = [lo, hi] is optional and [0, 1] without it (-inf and inf for an
    open side), and so is `classes`, the names in label order ("0", "1", … without it). Inputs stay in the file
    and are read when needed; small integers are handed on as float32. A sample's index is its row.
    """

    file: Path = param(..., "the .npz file", positional=True)

    def load(self, split: str) -> Samples:
        """Return a split, after one look at every value of it."""
        with Archive(self.file) as archive:
            pairs = _splits(archive)
            if split not in pairs:
                raise DataError(f"{self.file} has no split {split!r}: it has {' and '.join(pairs)}")
            x_name, y_name = pairs[split]
            labels = {name: _labels(archive, name) for _, name in pairs.values()}
            domain = _domain(archive)
            classes = _classes(archive, max(int(y.max()) for y in labels.values()))
            x, y = _inputs(archive, x_name), labels[y_name]
        if len(x) != len(y):
            raise DataError(f"{self.file} holds {len(x)} rows of {x_name} but {len(y)} of {y_name}")
        _check(x, domain, f"{x_name} in {self.file}")
        return Samples(x, y, np.arange(len(y)), domain, classes)


def _splits(archive: Archive) -> dict[str, tuple[str, str]]:
    """Return the names of the arrays (x, y) by split. Raises DataError where one of a pair is missing."""
    pairs: dict[str, tuple[str, str]] = {}
    for name in archive.names():
        head, _, split = name.partition("_")
        if head not in ("x", "y") or (not split and name != head):
            continue
        pair = (name, "y" + name[1:]) if head == "x" else ("x" + name[1:], name)
        missing = [member for member in pair if member not in archive]
        if missing:
            raise DataError(f"{archive.path} has {name} but no {missing[0]}: save both")
        if pairs.setdefault(split or "test", pair) != pair:
            raise DataError(f"{archive.path} has both x and x_test: keep one of them")
    if not pairs:
        there = ", ".join(archive.names()[:8]) or "nothing"
        raise DataError(f"{archive.path} has no arrays x and y (it holds {there}): write it with numpy.savez(x=…, y=…)")
    return pairs


def _labels(archive: Archive, name: str) -> npt.NDArray[np.int64]:
    y = archive.array(name)
    if y.ndim != 1:
        raise DataError(f"{name} in {archive.path} has shape {y.shape}: labels are one integer per sample")
    if y.dtype.kind not in "iu":
        raise DataError(f"{name} in {archive.path} has dtype {y.dtype}: labels are integers from 0 on")
    if not len(y):
        raise DataError(f"{name} in {archive.path} is empty")
    if int(y.min()) < 0 or int(y.max()) >= 2**31:
        bad = y.min() if int(y.min()) < 0 else y.max()
        raise DataError(f"{name} in {archive.path} holds the label {bad}: labels are integers from 0 on")
    return y.astype(np.int64)


def _domain(archive: Archive) -> Domain:
    if "domain" not in archive:
        return Domain(0.0, 1.0)
    sides = archive.array("domain")
    if sides.shape != (2,) or sides.dtype.kind not in "fiu":
        raise DataError(f"domain in {archive.path} has shape {sides.shape}, dtype {sides.dtype}: save [lower, upper]")
    try:
        return Domain(float(sides[0]), float(sides[1]))
    except InputError as error:
        raise DataError(f"domain in {archive.path}: {error}") from None


def _classes(archive: Archive, largest: int) -> tuple[str, ...]:
    if "classes" not in archive:
        return tuple(str(label) for label in range(largest + 1))
    names = archive.array("classes")
    if names.ndim != 1 or names.dtype.kind != "U":
        found = f"shape {names.shape}, dtype {names.dtype}"
        raise DataError(f"classes in {archive.path} has {found}: save a list of strings")
    if len(names) <= largest:
        raise DataError(f"classes in {archive.path} has {len(names)} names, but there is a label {largest}")
    if len(set(names.tolist())) != len(names):
        raise DataError(f"classes in {archive.path} repeats a name")
    return tuple(names.tolist())


def _inputs(archive: Archive, name: str) -> ArraySource:
    x = archive.rows(name)
    if len(x.shape) < 2 or not prod(x.shape[1:]):
        raise DataError(f"{name} in {archive.path} has shape {x.shape}: save one row per sample, [N, ...]")
    if x.dtype.kind not in "fiu":
        raise DataError(f"{name} in {archive.path} has dtype {x.dtype}: inputs are floats or integers")
    native = np.dtype(_FLOAT.get(x.dtype.str[1:], "<f8"))
    return x if x.dtype == native else _Cast(x, native)


def _check(x: ArraySource, domain: Domain, where: str) -> None:
    """Look at every input once, a block at a time. Raises DataError at the first bad one."""
    step = max(1, _BLOCK // max(1, prod(x.shape[1:]) * x.dtype.itemsize))
    for start in range(0, len(x), step):
        block = np.asarray(x[start : start + step])
        if block.min() >= domain.lower and block.max() <= domain.upper and np.isfinite(block).all():
            continue
        bad = ~((block >= domain.lower) & (block <= domain.upper) & np.isfinite(block))
        row = int(np.flatnonzero(bad.reshape(len(block), -1).any(1))[0])
        value = block[row][bad[row]].flat[0]
        if not np.isfinite(value):
            raise DataError(f"row {start + row} of {where} holds {value}: inputs are finite numbers")
        raise DataError(
            f"row {start + row} of {where} holds {value:g}, outside the domain [{domain.lower:g}, {domain.upper:g}]: "
            "rescale the inputs, or save their domain as an array domain = [lower, upper]"
        )


class _Cast:
    """Another source in a float dtype, cast on access."""

    def __init__(self, source: ArraySource, dtype: np.dtype[Any]) -> None:
        self._source = source
        self.shape = source.shape
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, rows: Any) -> npt.NDArray[Any]:
        return np.asarray(self._source[rows]).astype(self.dtype)

"""The pickled batches that CIFAR-10 and CIFAR-100 are published in, read without unpickling: nothing is ever called.

A pickle is a program for a small stack machine. Of its instructions these files use those that build dictionaries,
lists, tuples, texts and integers, and three that make a NumPy array: a global name, a call and a state. Here the names
are held against a list of three, and calls and states are only written down, to be compared with the one array of
bytes that belongs there. Every other instruction, name or form is refused.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from robench.errors import DataError

__all__ = ["read_batch"]

_NAMES: Final = frozenset({"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"})
_PLAIN: Final = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINSTRING", "BINSTRING", "NONE", "NEWTRUE", "NEWFALSE"}
)
_PUT: Final = frozenset({"BINPUT", "LONG_BINPUT"})
_GET: Final = frozenset({"BINGET", "LONG_BINGET"})
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_DTYPE: Final = (3, "|", None, None, None, -1, -1, 0)  # version, byte order, …: what numpy says about single bytes


class _Refused(Exception):
    """Not a batch; the reason."""


@dataclass(frozen=True)
class _Name:
    """A global name, which stays a name."""

    text: str


@dataclass
class _Call:
    """A call that was asked for and not made, and the state that its result was to get."""

    function: Any
    arguments: Any
    state: Any = None


_MARK: Final = object()


def read_batch(path: Path, rows: int, size: int, key: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return `data` [rows, size] and the integers [rows] under `key`. Raises DataError for any other file."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    try:
        found = _run(raw)
        return _array(found, rows, size), _labels(found, key, rows)
    except _Refused as error:
        raise DataError(f"{path} is not a published batch of CIFAR: {error}") from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, StopIteration, TypeError, ValueError):
        raise DataError(f"{path} is damaged or truncated: copy the file again") from None


def _run(raw: bytes) -> Mapping[Any, Any]:
    """Follow the instructions; no value is anything but plain data, a name or a call that was not made."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for code, argument, _ in pickletools.genops(io.BytesIO(raw)):
        name = code.name
        if name in _PLAIN:
            stack.append(_CONSTANTS.get(name, argument))
        elif name in _PUT:
            memo[argument] = stack[-1]
        elif name in _GET:
            stack.append(memo[argument])
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name in _STEPS:
            _STEPS[name](stack)
        elif name == "GLOBAL":
            if argument not in _NAMES:
                raise _Refused(f"it names {str(argument)[:60]!r}")
            stack.append(_Name(argument))
        elif name not in ("PROTO", "STOP"):
            raise _Refused(f"it holds the instruction {name}")
    found = stack.pop()
    if stack or not isinstance(found, dict):
        raise _Refused("it holds no dictionary")
    return found


def _since_mark(stack: list[Any]) -> list[Any]:
    place = next(at for at in reversed(range(len(stack))) if stack[at] is _MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _append(stack: list[Any]) -> None:
    items = _since_mark(stack)
    stack[-1].extend(items)


def _set(stack: list[Any]) -> None:
    items = _since_mark(stack)
    if not all(type(key) is str for key in items[::2]):  # of anything else not even a hash is taken
        raise _Refused("its keys are no texts")
    stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _call(stack: list[Any]) -> None:
    arguments = stack.pop()
    stack.append(_Call(stack.pop(), arguments))


def _build(stack: list[Any]) -> None:
    state = stack.pop()
    stack[-1].state = state


_STEPS: Final[Mapping[str, Callable[[list[Any]], None]]] = {
    "MARK": lambda stack: stack.append(_MARK),
    "EMPTY_DICT": lambda stack: stack.append({}),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "TUPLE": lambda stack: stack.append(tuple(_since_mark(stack))),
    "APPENDS": _append,
    "SETITEMS": _set,
    "REDUCE": _call,
    "BUILD": _build,
}


def _array(found: Mapping[Any, Any], rows: int, size: int) -> npt.NDArray[np.uint8]:
    """Return `data`, where it is the array of bytes that NumPy would have made of those calls."""
    array = found["data"]
    wanted = _Call(_Name("numpy.core.multiarray _reconstruct"), (_Name("numpy ndarray"), (0,), "b"), array.state)
    if array != wanted:
        raise _Refused("data is no NumPy array")
    version, shape, dtype, fortran, text = array.state
    if dtype != _Call(_Name("numpy dtype"), ("u1", 0, 1), _DTYPE) or type(fortran) is not bool or version != 1:
        raise _Refused("data is no plain array of bytes")
    if shape != (rows, size) or len(text) != rows * size:
        raise _Refused(f"data is not of the shape ({rows}, {size})")
    return np.frombuffer(text.encode("latin-1"), np.uint8).reshape(rows, size, order="F" if fortran else "C")


def _labels(found: Mapping[Any, Any], key: str, rows: int) -> npt.NDArray[np.int64]:
    labels = found[key]
    if not isinstance(labels, list) or len(labels) != rows or not all(type(label) is int for label in labels):
        raise _Refused(f"{key} is no list of {rows} integers")
    return np.array(labels, np.int64)

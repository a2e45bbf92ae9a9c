"""Counterexamples in the competition's format: `((X_0 0.5) (X_1 …) … (Y_0 …) …)`, perhaps gzipped."""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robench.errors import DataError

__all__ = ["Point", "find_points", "read_point"]

_GZIP = b"\x1f\x8b"
_LARGEST = 64 << 20  # a line per input: two million of them
_NUMBER = r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,1200})?|\.[0-9]{1,1200})(?:[eE][+-]?[0-9]{1,4})?"
_PAIR = re.compile(rf"\(\s*([XY])_([0-9]{{1,9}})\s+({_NUMBER})\s*\)")


@dataclass(frozen=True, eq=False)
class Point:
    """An input that a tool published: the doubles nearest to the printed numbers [inputs], and the file's sha256."""

    x: npt.NDArray[np.float64]
    digest: str


def find_points(tool: Path, benchmark: str, network: str, instance: str, line: int) -> list[Path]:
    """Return the files that may be one instance's counterexample within a tool's folder, the likelier ones first.

    Where the name is several instances', `robench export` adds the number of the `line` in the tool's table to it.
    """
    usual = f"{network}_{instance}"
    found = _find(tool, benchmark, usual)
    numbered = _find(tool, benchmark, f"{usual}-{line}") if found else None
    return [file for file in (numbered, found) if file is not None]


def _find(tool: Path, benchmark: str, name: str) -> Path | None:
    places = (tool / folder / f"{name}.counterexample" for folder in ("counterexamples", benchmark, "."))
    both = (file for place in places for file in (place, place.with_name(f"{place.name}.gz")))
    return next((file for file in both if file.is_file()), None)


def read_point(file: Path) -> Point:
    """Read a counterexample. Raises DataError for anything but one number per input, all finite."""
    text, digest = _text(file)
    rest = _PAIR.sub("", text.strip().removeprefix("sat")).split()
    values: dict[int, float] = {}
    for pair in _PAIR.finditer(text):
        if pair[1] == "X":
            if int(pair[2]) in values:
                raise DataError(f"{file}: X_{pair[2]} is there twice")
            values[int(pair[2])] = float(pair[3])
    if "".join(rest) != "()" or not values or sorted(values) != list(range(len(values))):
        raise DataError(f"{file}: not a counterexample: a list of (X_0 number) … (Y_0 number) … is needed")
    x = np.array([values[position] for position in range(len(values))])
    if not np.isfinite(x).all():
        raise DataError(f"{file}: an input is not a finite number")
    return Point(x, digest)


def _text(file: Path) -> tuple[str, str]:
    try:
        data = file.read_bytes() if file.stat().st_size <= _LARGEST else b""
        content = data
        if data[:2] == _GZIP:
            with gzip.open(file) as stream:
                content = stream.read(_LARGEST + 1)
        if not data or len(content) > _LARGEST:
            raise DataError(f"{file}: empty, or larger than any counterexample")
        return content.decode("ascii"), hashlib.sha256(data).hexdigest()
    except UnicodeDecodeError:
        raise DataError(f"{file}: not a counterexample (it is not plain text)") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None

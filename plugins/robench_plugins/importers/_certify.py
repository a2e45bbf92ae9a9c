"""The CERTIFY files of Cohen, Rosenfeld & Kolter 2019 (arXiv:1902.02918, locuslab/smoothing): what each line says.

Tab-separated `idx label predict radius correct time`. The radius is printed with three significant digits, the
time as seconds or as H:MM:SS; predict = -1 abstains.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from robench.errors import DataError

__all__ = ["Line", "certified_lower", "printed_unit", "read_lines"]

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime"
_LARGEST = 256 << 20
_INTEGER = re.compile(r"(0|[1-9][0-9]{0,8})")
_RADIUS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,12})?(e-[0-9]{1,2})?")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?(e-[0-9]{1,2})?")
_CLOCK = re.compile(r"(?:([0-9]{1,4}) days?, )?([0-9]{1,4}):([0-5][0-9]):([0-5][0-9](?:\.[0-9]{1,9})?)")


@dataclass(frozen=True)
class Line:
    """One sample: `radius` as printed, `correct` as the file says it, `seconds` of certification."""

    sample: int
    label: int
    predict: int
    radius: Decimal
    correct: bool
    seconds: float

    @property
    def abstains(self) -> bool:
        """Whether CERTIFY gave no class."""
        return self.predict == -1


def read_lines(path: Path) -> list[Line]:
    """Return the samples of a CERTIFY file. Raises DataError, naming the line, for anything irregular."""
    try:
        if not path.is_file():
            raise DataError(f"{path}: not a file")
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path}: larger than any CERTIFY file")
        text = path.read_bytes().decode("ascii")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a CERTIFY file (it is not plain text)") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if lines[0] != HEADER:
        raise DataError(f"{path}, line 1: not a CERTIFY file: the header must be {' '.join(HEADER.split())}")
    if len(lines) == 1:
        raise DataError(f"{path}: a CERTIFY file without samples")
    found: dict[int, Line] = {}
    for number, content in enumerate(lines[1:], start=2):
        try:
            line = _parse(content)
            if line.sample in found:
                raise ValueError(f"sample {line.sample} is there twice")
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from None
        found[line.sample] = line
    return list(found.values())


def printed_unit(radius: Decimal) -> Decimal:
    """The unit of the third significant digit of a printed radius: 10 ** (floor(log10 R) - 2)."""
    return Decimal(1).scaleb(radius.adjusted() - 2)


def certified_lower(radius: Decimal) -> float:
    """A double that the printed radius proves: half a printed unit lower, rounded down, then the closed ball."""
    if radius == 0:
        return 0.0
    exact = Fraction(radius) - Fraction(printed_unit(radius)) / 2
    nearest = float(exact)
    below = nearest if Fraction(nearest) <= exact else math.nextafter(nearest, 0.0)
    return math.nextafter(below, 0.0)


def _parse(content: str) -> Line:
    cells = content.split("\t")
    if len(cells) != 6:
        raise ValueError(f"{len(cells)} columns instead of 6")
    sample, label = _integer(cells[0], "idx"), _integer(cells[1], "label")
    predict = -1 if cells[2] == "-1" else _integer(cells[2], "predict")
    if not _RADIUS.fullmatch(cells[3]):
        raise ValueError(f"radius {cells[3][:20]!r} is not a number from 0 on")
    radius = Decimal(cells[3])
    if cells[4] not in ("0", "1"):
        raise ValueError(f"correct is {cells[4][:20]!r}, not 0 or 1")
    if (cells[4] == "1") != (predict == label):
        raise ValueError(f"correct is {cells[4]}, but predict is {predict} and the label {label}")
    if predict == -1 and radius:
        raise ValueError(f"abstains with a radius of {radius}")
    return Line(sample, label, predict, radius, cells[4] == "1", _time(cells[5]))


def _integer(text: str, name: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{name} {text[:20]!r} is not a whole number from 0 on")
    return int(text)


def _time(text: str) -> float:
    if _SECONDS.fullmatch(text):
        return float(text)
    clock = _CLOCK.fullmatch(text)
    if clock is None:
        raise ValueError(f"time {text[:20]!r} is neither seconds nor H:MM:SS")
    days, hours, minutes, seconds = clock.groups()
    return ((int(days or 0) * 24 + int(hours)) * 60 + int(minutes)) * 60 + float(seconds)

"""Reads VNN-LIB 1 as s-expressions, every one with its line.

The format (Demarchi, Guidotti, Pulina and Tacchella 2023, "Supporting standardization of neural networks verification
with VNN-LIB and CoCoNet"; VNN-COMP 2021 rules) is a subset of SMT-LIB 2: `declare-const` of inputs X_i and outputs Y_j,
and `assert`. Files come from others: sizes, depths and counts are bounded.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final, NamedTuple

from robench.errors import DataError

__all__ = ["Bound", "Form", "Text", "Token", "problem", "read_forms", "read_text"]

LARGEST: Final = 64 << 20  # bytes of a file, decompressed
_DEEPEST: Final = 64
_GZIP: Final = b"\x1f\x8b"
_TOKEN: Final = re.compile(r"[()]|[^\s();]+")
_NUMBER: Final = r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?"
_PLAIN: Final = re.compile(rf"\(assert \((<=|>=) X_(0|[1-9][0-9]{{0,7}}) ({_NUMBER})\)\)\s*")
_DECLARED: Final = re.compile(r"\(declare-const ([XY])_(0|[1-9][0-9]{0,7}) Real\)\s*")
NUMBER: Final = re.compile(_NUMBER)


@dataclass(frozen=True, slots=True)
class Token:
    """A word of the file and its line, from 1."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Form:
    """A list in parentheses; `line` is that of its first parenthesis, `last` that of its last one."""

    parts: tuple[Token | Form, ...]
    line: int
    last: int


class Bound(NamedTuple):
    """X_`variable` ≤ or ≥ a number, as written: an assertion of one line."""

    upper: bool
    variable: int
    text: str
    line: int


@dataclass(frozen=True)
class Text:
    """What a file says: declared variables as (X or Y, index, line), plain bounds of inputs, and all other forms."""

    declared: Sequence[tuple[str, int, int]]
    bounds: Sequence[Bound]
    forms: Sequence[Form]


def problem(path: Path, line: int, what: str) -> DataError:
    """Return the error about a line of a file."""
    return DataError(f"{path}, line {line}: {what}")


def read_text(path: Path) -> str:
    """Return a file's text, decompressed where it is gzipped. Raises DataError for one that cannot be read."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
        with gzip.open(path) if packed else path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except Exception as error:  # zlib's own
        raise DataError(f"{path}: cannot be decompressed ({error})") from None
    if len(data) > LARGEST:
        raise DataError(f"{path}: larger than {LARGEST >> 20} MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise problem(path, line, "not text (UTF-8)") from None


def read_forms(path: Path, text: str, *, quick: bool = True) -> Text:
    """Return what `text` says. Raises DataError with the line of what is malformed.

    With `quick`, lines that are one declaration or one bound of an input are not read as s-expressions; the outcome is
    the same.
    """
    lines = text.split("\n")
    declared: list[tuple[str, int, int]] = []
    bounds: list[Bound] = []
    rest: list[tuple[int, str]] = []
    taken: list[int] = []
    for number, line in enumerate(lines, start=1):
        if quick and (plain := _PLAIN.fullmatch(line)):
            bounds.append(Bound(plain[1] == "<=", int(plain[2]), plain[3], number))
            taken.append(number)
        elif quick and (said := _DECLARED.fullmatch(line)):
            declared.append((said[1], int(said[2]), number))
            taken.append(number)
        elif line:
            rest.append((number, line))
    forms = []
    known = set(taken)
    for form in _forms(path, rest):
        if form.last > form.line and not known.isdisjoint(range(form.line + 1, form.last)):
            return read_forms(path, text, quick=False)  # a plain line inside a form is part of it
        if said_so := _declaration(path, form):
            declared.append(said_so)
        else:
            forms.append(form)
    return Text(declared, bounds, forms)


def _forms(path: Path, lines: Sequence[tuple[int, str]]) -> Iterator[Form]:
    """Yield the top-level forms of numbered lines."""
    stack: list[tuple[int, list[Token | Form]]] = []
    for number, line in lines:
        for match in _TOKEN.finditer(line.partition(";")[0]):
            word = match[0]
            if word == "(":
                if len(stack) >= _DEEPEST:
                    raise problem(path, number, f"nested deeper than {_DEEPEST} parentheses")
                stack.append((number, []))
            elif word == ")":
                if not stack:
                    raise problem(path, number, "a closing parenthesis too many")
                first, parts = stack.pop()
                form = Form(tuple(parts), first, number)
                if stack:
                    stack[-1][1].append(form)
                else:
                    yield form
            elif not stack:
                raise problem(path, number, f"{shown(word)} stands outside parentheses")
            else:
                stack[-1][1].append(Token(word, number))
    if stack:
        raise problem(path, stack[-1][0], "a parenthesis is never closed")


def _declaration(path: Path, form: Form) -> tuple[str, int, int] | None:
    words = [part.text for part in form.parts if isinstance(part, Token)]
    if not words or words[0] != "declare-const":
        return None
    name = variable(words[1]) if len(words) == len(form.parts) == 3 and words[2] == "Real" else None
    if name is None:
        raise problem(path, form.line, "a declaration that is not (declare-const X_0 Real) or (declare-const Y_0 Real)")
    return (*name, form.line)


def variable(word: str) -> tuple[str, int] | None:
    """Return ("X" or "Y", index) of a variable's name, None of another word."""
    letter, _, digits = word.partition("_")
    plain = letter in ("X", "Y") and digits.isascii() and digits.isdigit() and len(digits) <= 8
    return (letter, int(digits)) if plain and (digits == "0" or digits[0] != "0") else None


def number(word: str) -> Decimal | None:
    """Return a decimal number, exactly; None of another word."""
    return Decimal(word) if NUMBER.fullmatch(word) else None


def shown(word: str) -> str:
    """Return a word of the file as it may be printed."""
    return ascii(word if len(word) <= 40 else word[:40] + "…")

"""A property: the closed box of its inputs, and what must not come out of it."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from robench.regions import Condition
from robench_plugins.datasets._vnnlib_logic import MOST_CASES, Case, Linear, assertion, combined
from robench_plugins.datasets._vnnlib_read import Text, problem, read_forms, read_text

__all__ = ["Property", "read_property"]

MOST_INPUTS: Final = 1 << 20
MOST_NUMBERS: Final = 1 << 24
"""Entries of a condition's rows in all."""

Floats = npt.NDArray[np.float64]
Exact = Decimal | Fraction
Sides = MutableMapping[tuple[bool, int], tuple[Exact, int]]
"""The tightest bound of each input so far, by (upper, index), and its line."""


@dataclass(frozen=True, eq=False)
class Property:
    """What a VNN-LIB file states.

    Attributes:
        lower: the closed box of the exact decimals, rounded outward, float64 [inputs].
        upper: float64 [inputs].
        least: the same box, rounded inward: below `lower`'s exact number lies none of it.
        most: float64 [inputs].
        condition: what must not occur in the box.
        inputs: number of inputs.
        outputs: number of outputs.
    """

    lower: Floats
    upper: Floats
    least: Floats
    most: Floats
    condition: Condition
    inputs: int
    outputs: int

    @property
    def label(self) -> int | None:
        """The class that must stay ahead of all others; None where the condition is another one."""
        return self.condition.label


def read_property(path: Path, *, quick: bool = True) -> Property:
    """Read a VNN-LIB 1 file, gzipped or not. Raises DataError with the line of what it cannot be.

    `quick` reads plain lines by a pattern, with the same outcome.
    """
    text = read_forms(path, read_text(path), quick=quick)
    counts = _counts(path, text)
    sides: Sides = {}
    for bound in text.bounds:
        if bound.variable >= counts["X"]:
            raise problem(path, bound.line, f"X_{bound.variable} is not declared")
        value = Decimal(bound.text)
        if abs(value.adjusted()) > 400:
            raise problem(path, bound.line, f"{bound.text[:40]!r} is no number that a network computes with")
        _tighten(sides, bound.upper, bound.variable, value, bound.line)
    outputs: list[Linear] = []
    choices: list[tuple[list[Case], int]] = []
    for form in text.forms:
        cases = assertion(path, form, counts)
        if len(cases) > 1:
            choices.append((cases, form.line))
            if math.prod(len(some) for some, _ in choices) > MOST_CASES:
                raise problem(path, form.line, f"more than {MOST_CASES} cases")
            continue
        outputs += cases[0].outputs
        for upper, index, exact, line in cases[0].bounds:
            _tighten(sides, upper, index, exact, line)
    last = text.forms[-1].last if text.forms else text.bounds[-1].line if text.bounds else 1
    disjuncts, room = [], MOST_NUMBERS // counts["Y"]
    for case in _all(path, choices, sides):
        room -= len(outputs) + len(case.outputs)
        if room < 0:
            raise problem(path, last, "a condition of too many inequalities")
        rows = [*outputs, *case.outputs]
        if not rows:
            raise problem(path, choices[0][1] if choices else last, "no condition on the outputs: all are unsafe")
        disjuncts.append(rows)
    box = _box(path, sides, counts["X"], {index: line for letter, index, line in text.declared if letter == "X"})
    return Property(*box, _condition(path, disjuncts, counts["Y"], last), counts["X"], counts["Y"])


def _counts(path: Path, text: Text) -> Mapping[str, int]:
    """Return the numbers of inputs and outputs: each of X_0 … and Y_0 … declared once."""
    seen: dict[str, dict[int, int]] = {"X": {}, "Y": {}}
    for letter, index, line in text.declared:
        if index in seen[letter]:
            raise problem(path, line, f"{letter}_{index} is declared twice")
        seen[letter][index] = line
    for letter, lines in seen.items():
        if not lines:
            raise problem(path, 1, f"declares no {letter}_0: it is no VNN-LIB property")
        if max(lines) >= len(lines):
            raise problem(path, lines[max(lines)], f"{letter}_{max(lines)} is declared, but not all before it")
        if len(lines) > MOST_INPUTS:
            raise problem(path, lines[MOST_INPUTS], f"more than {MOST_INPUTS} variables")
    return {letter: len(lines) for letter, lines in seen.items()}


def _tighten(sides: Sides, upper: bool, index: int, value: Exact, line: int) -> None:
    known = sides.get((upper, index))
    if known is not None:
        exact, other = Fraction(value), Fraction(known[0])
        if (exact >= other) if upper else (exact <= other):
            return
    sides[upper, index] = value, line


def _all(path: Path, choices: Sequence[tuple[list[Case], int]], sides: Sides) -> list[Case]:
    """Return every combination of the choices; their bounds of inputs, the same in all, go into `sides`."""
    found = combined(path, choices)
    first: tuple[Sides, dict[tuple[bool, int], Fraction]] | None = None
    for case in found:
        own: Sides = {}
        for upper, index, exact, line in case.bounds:
            _tighten(ChainMap(own, sides), upper, index, exact, line)
        values = {key: Fraction(value) for key, (value, _) in own.items()}  # what is tighter than in all cases
        if first is None:
            first = own, values
        elif values != first[1]:
            line = case.bounds[0][3] if case.bounds else found[0].bounds[0][3]
            raise problem(path, line, "cases with other boxes: split the property into one file for each box")
    if first is not None:
        sides.update(first[0])
    return found


def _box(path: Path, sides: Sides, inputs: int, declared: Mapping[int, int]) -> tuple[Floats, Floats, Floats, Floats]:
    """Return (lower, upper) rounded outward and (least, most) rounded inward, float64 [inputs] each."""
    out = np.empty((4, inputs))
    for index in range(inputs):
        low, high = sides.get((False, index)), sides.get((True, index))
        if low is None or high is None:
            side = "lower" if low is None else "upper"
            raise problem(path, declared[index], f"X_{index} has no {side} bound: boxes must be bounded")
        if _above(low[0], high[0]):
            text = f"X_{index} is at least {float(low[0]):g} and at most {float(high[0]):g}: no number is"
            raise problem(path, max(low[1], high[1]), text)
        down, up = _around(path, *low), _around(path, *high)
        out[:, index] = down[0], up[1], down[1], up[0]
    return out[0], out[1], out[2], out[3]


def _above(one: Exact, other: Exact) -> bool:
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return one > other
    return Fraction(one) > Fraction(other)


def _around(path: Path, value: Exact, line: int) -> tuple[float, float]:
    """Return the largest double not above a number and the smallest not below it."""
    try:
        nearest = float(value) + 0.0
    except OverflowError:
        nearest = math.inf
    if not math.isfinite(nearest):
        raise problem(path, line, "a bound beyond all doubles")
    exact = Decimal(nearest) if isinstance(value, Decimal) else Fraction(nearest)
    if exact == value:
        return nearest, nearest
    if exact < value:
        return nearest, math.nextafter(nearest, math.inf)
    return math.nextafter(nearest, -math.inf), nearest


def _condition(path: Path, disjuncts: Sequence[Sequence[Linear]], outputs: int, line: int) -> Condition:
    """Return the condition, with offsets rounded either way where they are no doubles."""
    below, above = [], []
    known: dict[int, tuple[Linear, tuple[float, float]]] = {}  # by identity: cases share inequalities
    for linears in disjuncts:
        rows = np.zeros((len(linears), outputs))
        offsets = np.empty((2, len(linears)))
        for position, linear in enumerate(linears):
            if id(linear) not in known:
                whole = _in_doubles(path, linear, line)
                known[id(linear)] = whole, _around(path, whole.constant, line)
            whole, offsets[:, position] = known[id(linear)]
            for (_, index), factor in whole.terms.items():
                rows[position, index] = float(factor)
        below.append((rows, offsets[0]))
        above.append((rows, offsets[1]))
    exact = all((low[1] == high[1]).all() for low, high in zip(below, above, strict=True))
    return Condition(tuple(below), None if exact else tuple(above))


def _in_doubles(path: Path, linear: Linear, line: int) -> Linear:
    """Return `linear`, times a positive number where a factor is no double, so that all factors are."""
    factors = list(linear.terms.values())
    if not all(_is_double(factor) for factor in factors):
        linear = linear.scaled(Fraction(math.lcm(*(factor.denominator for factor in factors))))
        if not all(_is_double(factor) for factor in linear.terms.values()):
            raise problem(path, line, "a factor of an output that no double holds: round it")
    return linear


def _is_double(value: Fraction) -> bool:
    try:
        return Fraction(float(value)) == value
    except OverflowError:
        return False
